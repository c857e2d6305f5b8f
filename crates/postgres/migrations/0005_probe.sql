-- Where a node whose appends fail tries whether the disk takes anything. Nothing is ever kept in it: each try begins a
-- new file and is rolled back.
CREATE TABLE probe (
    bytes bytea NOT NULL
);
-- As they are, in the table itself.
ALTER TABLE probe ALTER COLUMN bytes SET STORAGE PLAIN;
