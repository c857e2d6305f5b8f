-- Every event there is. Rows are added and never changed, so nothing here needs vacuuming for its dead rows, and no
-- transaction elsewhere, however long, makes it slower.
CREATE TABLE events (
    position bigint      NOT NULL PRIMARY KEY,
    recorded timestamptz NOT NULL,
    revision bigint      NOT NULL,
    -- Bytes of the event's record, and of all records through it. By these reads are bounded.
    size     integer     NOT NULL,
    total    bigint      NOT NULL,
    -- 1: last of its append. 2: first of its group.
    flags    smallint    NOT NULL,
    id       uuid        NOT NULL UNIQUE,
    stream   text        NOT NULL COLLATE "C",
    type     text        NOT NULL COLLATE "C",
    -- Metadata and tags, as JSON in UTF-8; empty when there are none.
    extra    bytea       NOT NULL,
    -- Byte for byte as appended.
    payload  bytea       NOT NULL,
    -- On the last event of each group: a digest of all of the history through here, chained over the groups. Empty on
    -- the others.
    digest   bytea       NOT NULL DEFAULT '',
    UNIQUE (stream, revision)
);

CREATE INDEX events_type ON events (type, position);

-- Its one row is locked by anyone who appends, until the commit, so positions follow the order of commits. It is never
-- changed: a row that is, has a version for each group as long as any transaction is older, and all are looked through.
-- It has the identity of this journal, made when the journal is made, which copies and backups keep.
CREATE TABLE sequencer (
    one     boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    journal uuid    NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO sequencer DEFAULT VALUES;

-- Appends the events of one group, if everything is as the caller thinks: all of them or none.
--
-- Each statement of a volatile function sees what was committed before that statement began. So all that follows the
-- lock sees every group before this one, which a single statement that waited for the lock would not.
--
-- Everybody waits for anyone who has the lock, so what takes time is looked up before. Positions follow the order of
-- commits: all that the look may have missed is above the last position that there was just before.
CREATE FUNCTION append(
    -- The highest position that the caller has seen.
    seen bigint,
    -- The streams that are written to or asked about, and the last revision that each must have: -1 is any but none,
    -- null is any.
    asked text[],
    demanded bigint[],
    -- The last revisions of these streams as the caller knows them, null where it does not, and the position at which
    -- that was so. They hold if nobody wrote after it.
    known bigint[],
    known_at bigint,
    -- The events: their stream as a place in the list above, and their place among those of the group in that stream.
    ids uuid[],
    places integer[],
    steps integer[],
    streams text[],
    types text[],
    sizes integer[],
    -- Bytes of the group's records through each of them.
    totals bigint[],
    flags smallint[],
    extras bytea[],
    payloads bytea[],
    -- A hash over all of the group.
    hash bytea,
    -- Microseconds since 1970; null is the time of this server.
    now bigint,
    OUT written boolean,
    -- The last position and the last revisions of the streams before the group.
    OUT head bigint,
    OUT revisions bigint[],
    -- The digest of the history through the group, if it was written.
    OUT digest bytea
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    looked_at bigint;
    is_there boolean;
    other record;
    last timestamptz;
    bytes bigint;
    chain bytea;
BEGIN
    SELECT coalesce(max(e.position), 0) INTO looked_at FROM events e;
    SELECT array_agg(coalesce(
        CASE WHEN looked_at = known_at THEN a.known END,
        (SELECT e.revision FROM events e WHERE e.stream = a.stream ORDER BY e.revision DESC LIMIT 1), 0) ORDER BY a.place)
        INTO revisions FROM unnest(asked, known) WITH ORDINALITY AS a (stream, known, place);
    is_there := EXISTS (SELECT FROM events e WHERE e.id = ANY (ids));

    PERFORM FROM sequencer FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted', MESSAGE = 'the one row of the table sequencer is gone',
            HINT = 'insert it again, with the identity of this journal as a backup has it';
    END IF;
    SELECT e.position, e.recorded, e.total, e.digest INTO head, last, bytes, chain
        FROM events e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    bytes := coalesce(bytes, 0);
    IF head > looked_at THEN
        FOR other IN
            SELECT a.place, e.revision, e.id = ANY (ids) AS is_ours
            FROM events e LEFT JOIN unnest(asked) WITH ORDINALITY AS a (stream, place) USING (stream)
            WHERE e.position > looked_at AND e.position <= head AND (a.place IS NOT NULL OR e.id = ANY (ids))
        LOOP
            is_there := is_there OR other.is_ours;
            IF other.place IS NOT NULL THEN
                revisions[other.place] := greatest(revisions[other.place], other.revision);
            END IF;
        END LOOP;
    END IF;
    written := head >= seen AND NOT is_there AND NOT EXISTS (
        SELECT FROM unnest(revisions, demanded) AS d (actual, demand)
        WHERE CASE WHEN demand = -1 THEN actual = 0 ELSE actual <> demand END);
    IF NOT written THEN
        RETURN;
    END IF;
    IF chain = '' THEN
        -- The end of the last group is gone, which only somebody by hand can have done.
        SELECT e.digest INTO chain FROM events e WHERE e.digest <> '' ORDER BY e.position DESC LIMIT 1;
    END IF;
    digest := substr(sha256(coalesce(chain, '') || hash), 1, 8);
    -- By their places: unnest would write each array into a table of its own first, which takes as long again.
    INSERT INTO events (position, recorded, revision, size, total, flags, id, stream, type, extra, payload,
        digest)
    SELECT head + n, greatest(last, coalesce('epoch'::timestamptz + now * interval '1 microsecond', clock_timestamp())),
        revisions[places[n]] + steps[n], sizes[n], bytes + totals[n], flags[n], ids[n], streams[n], types[n], extras[n],
        payloads[n], CASE WHEN n = cardinality(ids) THEN append.digest ELSE '' END
    FROM generate_series(1, cardinality(ids)) AS n;
    IF cardinality(ids) = 0 THEN
        -- Somebody only asks whether this works.
        RETURN;
    END IF;
    -- Anyone who listens learns of it with the commit. A listener that stopped keeps the queue of the server from getting
    -- shorter, and a full one fails every commit that tells something: well before that nobody is told, and all find the
    -- head by asking. Above one half the server's log names the process that is in the way.
    IF pg_notification_queue_usage() < 0.75 THEN
        PERFORM pg_notify('journal ' || current_schema(), (head + cardinality(ids))::text || ' ' || encode(digest, 'hex'));
    END IF;
END
$$;
