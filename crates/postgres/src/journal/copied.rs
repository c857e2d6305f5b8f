//! The binary form of `COPY`, taken apart: a header, rows of columns with their lengths, a mark at the end.

/// The columns of a row, in PostgreSQL's binary form.
pub(super) type Columns<'a, const N: usize> = [Option<&'a [u8]>; N];

/// What each copy begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// After it: flags, and the length of what follows, which later versions of PostgreSQL may use.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;
/// The number of columns that marks the end.
const END: i16 = -1;

/// A copy that is under way. Chunks are rows as a rule, and may be anything.
#[derive(Default)]
pub(super) struct Copied {
    /// What was left of the last chunk.
    rest: Vec<u8>,
    began: bool,
    ended: bool,
}

impl Copied {
    /// Gives each row that ends in this chunk to `push`.
    pub(super) fn rows<const N: usize>(
        &mut self,
        chunk: &[u8],
        mut push: impl FnMut(&Columns<'_, N>) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        let mut joined = std::mem::take(&mut self.rest);
        let mut bytes = chunk;
        if !joined.is_empty() {
            joined.extend_from_slice(chunk);
            bytes = &joined;
        }
        if !self.began {
            let Some(behind) = header(bytes)? else {
                self.rest = bytes.to_vec();
                return Ok(());
            };
            (self.began, bytes) = (true, behind);
        }
        loop {
            match row(bytes)? {
                Row::Whole(columns, behind) => {
                    push(&columns)?;
                    bytes = behind;
                }
                Row::End => {
                    self.ended = true;
                    return Ok(());
                }
                Row::Partial => {
                    self.rest = bytes.to_vec();
                    return Ok(());
                }
            }
        }
    }

    /// Refuses a copy that was cut off.
    pub(super) fn end(&self) -> Result<(), sqlx::Error> {
        if self.ended { Ok(()) } else { Err(damaged("a copy ended in the middle")) }
    }
}

pub(super) fn damaged(found: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(found.into())
}

/// What is after the header; `None` where that is not there yet.
#[expect(clippy::expect_used, reason = "a header has that many")]
fn header(bytes: &[u8]) -> Result<Option<&[u8]>, sqlx::Error> {
    let Some((header, behind)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let Some(fields) = header.strip_prefix(SIGNATURE) else { return Err(damaged("a copy begins otherwise")) };
    let extension = u32::from_be_bytes(*fields.last_chunk().expect("a header has that many"));
    Ok(behind.get(extension as usize..))
}

enum Row<'a, const N: usize> {
    /// And what is after it.
    Whole(Columns<'a, N>, &'a [u8]),
    Partial,
    End,
}

fn row<const N: usize>(bytes: &[u8]) -> Result<Row<'_, N>, sqlx::Error> {
    let Some((count, mut bytes)) = bytes.split_first_chunk() else { return Ok(Row::Partial) };
    match i16::from_be_bytes(*count) {
        END => return Ok(Row::End),
        count if usize::try_from(count) == Ok(N) => {}
        _ => return Err(damaged("a row of a copy has other columns")),
    }
    let mut columns = [None; N];
    for column in &mut columns {
        let Some((length, behind)) = bytes.split_first_chunk() else { return Ok(Row::Partial) };
        bytes = behind;
        // A negative length is NULL.
        if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
            let Some((value, behind)) = bytes.split_at_checked(length) else { return Ok(Row::Partial) };
            (*column, bytes) = (Some(value), behind);
        }
    }
    Ok(Row::Whole(columns, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: usize = 8;

    /// Returns a copy of rows, of which each has its number in every column but the last.
    fn copy(rows: &[i64]) -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 4], &3_u32.to_be_bytes(), b"new"].concat();
        for row in rows {
            bytes.extend((COLUMNS as i16).to_be_bytes());
            for _ in 1..COLUMNS {
                bytes.extend(8_i32.to_be_bytes());
                bytes.extend(row.to_be_bytes());
            }
            bytes.extend((-1_i32).to_be_bytes());
        }
        bytes.extend(END.to_be_bytes());
        bytes
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<i64>, sqlx::Error> {
        let (mut copied, mut rows) = (Copied::default(), Vec::new());
        for chunk in chunks {
            copied.rows(chunk, |columns: &Columns<'_, COLUMNS>| {
                assert_eq!(columns[COLUMNS - 1], None);
                rows.push(i64::from_be_bytes(columns[0].unwrap().try_into().unwrap()));
                Ok(())
            })?;
        }
        copied.end().map(|()| rows)
    }

    #[test]
    fn rows_are_the_same_wherever_chunks_end() {
        let bytes = copy(&[1, 2, -3]);
        for first in 0..bytes.len() {
            let (one, rest) = bytes.split_at(first);
            let (two, three) = rest.split_at(rest.len() / 2);
            assert_eq!(read(&[one, two, three]).unwrap(), [1, 2, -3], "cut at {first}");
        }
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), [1, 2, -3]);
    }

    #[test]
    fn what_is_no_copy_or_cut_off_is_refused() {
        let bytes = copy(&[1]);
        read(&[&bytes[..bytes.len() - 1]]).unwrap_err();
        read(&[]).unwrap_err();
        read(&[&[&b"P"[..], &bytes].concat()]).unwrap_err();
        let mut other = copy(&[]);
        other.truncate(other.len() - 2);
        other.extend(3_i16.to_be_bytes());
        read(&[&other]).unwrap_err();
    }
}
