//! Local time, as programs of this machine write it into names.

/// Year, month, day, hour, minute and second, so many seconds after 1970 began in UTC; `None` if there is no such time.
pub(crate) fn local(seconds: i64) -> Option<[i32; 6]> {
    // SAFETY: it is made of plain numbers and a pointer that nobody follows, for which zero is a value.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: the call reads one number and writes one record, and both are ours.
    let made = unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    let libc::tm { tm_year, tm_mon, tm_mday, tm_hour, tm_min, tm_sec, .. } = time;
    (!made.is_null()).then_some([tm_year + 1900, tm_mon + 1, tm_mday, tm_hour, tm_min, tm_sec])
}
