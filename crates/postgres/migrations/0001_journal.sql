-- Every event there is. Rows are added and never changed, so nothing here needs vacuuming for its dead rows, and no
-- transaction elsewhere, however long, makes it slower.
CREATE TABLE events (
    position bigint      NOT NULL PRIMARY KEY,
    recorded timestamptz NOT NULL,
    revision bigint      NOT NULL,
    -- Bytes of the event's record, by which reads are bounded.
    size     integer     NOT NULL,
    -- 1: last of its append. 2: first of its group.
    flags    smallint    NOT NULL,
    id       uuid        NOT NULL UNIQUE,
    stream   text        NOT NULL COLLATE "C",
    type     text        NOT NULL COLLATE "C",
    -- Metadata and tags, as JSON in UTF-8; empty when there are none.
    extra    bytea       NOT NULL,
    -- Byte for byte as appended.
    payload  bytea       NOT NULL,
    UNIQUE (stream, revision)
);

CREATE INDEX events_type ON events (type, position);

-- Its one row is locked by whoever appends, until the commit, so positions follow the order of commits. It is never
-- changed: a row that is, has a version for each group as long as any transaction is older, and all are looked through.
CREATE TABLE sequencer (one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one));
INSERT INTO sequencer DEFAULT VALUES;
