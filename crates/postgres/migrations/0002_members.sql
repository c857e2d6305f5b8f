-- The nodes that share this schema, each with a lease by the server's clock.
CREATE TABLE members (
    id bytea PRIMARY KEY,
    name text NOT NULL,
    address text,
    -- The code that it carries: projections, and beside each the version of its code.
    projections text[] NOT NULL,
    codes bigint[] NOT NULL,
    ready boolean NOT NULL,
    lease_ends timestamptz NOT NULL
);
