-- What SQL from outside finds under the name of each projection, in a schema beside this one.
CREATE TABLE published (
    projection text PRIMARY KEY,
    -- The version that the name shows, as text; empty before the first.
    version text NOT NULL,
    -- The position of the flip by which it serves. A name never goes back to an earlier flip.
    flip bigint NOT NULL,
    -- The SQL views that were made there.
    names text[] NOT NULL
);
