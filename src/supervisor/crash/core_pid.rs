//! Whose memory a core file is: files of one name are written over by whoever crashes next.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of the notes is read, in bytes: who crashed stands near their beginning.
const NOTES: usize = 64 << 10;
/// The kind of header that tells where notes are, and the kind of note that tells of the process.
const PT_NOTE: u32 = 4;
const NT_PRPSINFO: u32 = 3;
/// Where the pid stands in such a note, on machines of 64 bits.
const PR_PID: usize = 24;

/// The process that the core file is of; `None` if it does not tell, or not as a machine of 64 bits has it.
pub(super) fn whose(core: &Path) -> Option<u32> {
    let file = File::open(core).ok()?;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    // 64 bits, the low byte first.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (at, size, count) = (long(&head, 32)?, short(&head, 54)?, short(&head, 56)?);
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, at.checked_add(index.checked_mul(size.into())?)?).ok()?;
        if word(&entry, 0)? == PT_NOTE {
            let length = usize::try_from(long(&entry, 32)?).unwrap_or(NOTES).min(NOTES);
            let mut notes = vec![0; length];
            file.read_exact_at(&mut notes, long(&entry, 8)?).ok()?;
            return pid(&notes);
        }
    }
    None
}

/// The pid in the note about the process.
fn pid(mut notes: &[u8]) -> Option<u32> {
    let padded = |length: u32| usize::try_from(length).ok()?.checked_next_multiple_of(4);
    loop {
        let (name, text, kind) = (padded(word(notes, 0)?)?, padded(word(notes, 4)?)?, word(notes, 8)?);
        let body = notes.get(12..)?.get(name..)?;
        if kind == NT_PRPSINFO {
            return word(body.get(..text)?, PR_PID);
        }
        notes = body.get(text..)?;
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core file with one header, and these notes: their kind and text.
    fn core(notes: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut written = Vec::new();
        for (kind, text) in notes {
            [5, text.len() as u32, *kind].iter().for_each(|number| written.extend(number.to_le_bytes()));
            written.extend(b"CORE\0\0\0\0");
            written.extend(*text);
            written.resize(written.len().next_multiple_of(4), 0);
        }
        bytes[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(written.len() as u64).to_le_bytes());
        bytes.extend(written);
        bytes
    }

    #[test]
    fn a_core_file_tells_whose_it_is_and_one_that_is_cut_off_or_none_tells_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("core");
        let told = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            whose(&path)
        };
        let mut process = vec![0; 136];
        process[PR_PID..PR_PID + 4].copy_from_slice(&4711_u32.to_le_bytes());
        let whole = core(&[(1, &[7; 337]), (NT_PRPSINFO, &process)]);
        assert_eq!(told(&whole), Some(4711));
        for length in 0..whole.len() {
            assert_eq!(told(&whole[..length]), None, "{length}");
        }
        assert_eq!(told(&core(&[(1, &[0; 336])])), None);
        assert_eq!(told(&core(&[(NT_PRPSINFO, &[0; 8])])), None);
        assert_eq!(told(b"no core file"), None);
        assert_eq!(told(&[0xff; 4096]), None);
        let mut huge = whole.clone();
        huge[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        huge[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(told(&huge), None);
        assert_eq!(whose(&home.path().join("none")), None);
    }
}
