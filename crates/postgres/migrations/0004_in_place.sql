-- Beside each code that a node carries, whether past events may go through its versions again in place, by name. Empty
-- of nodes of earlier releases, which do not say.
ALTER TABLE members ADD COLUMN in_place text[] NOT NULL DEFAULT '{}';
