//! What the kernel says of a process.

use std::{fs, io, time::Duration};

/// Which process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// This one.
    Own,
    /// Another one, by its id.
    Other(u32),
}

impl Process {
    fn read(self, file: &str) -> io::Result<String> {
        match self {
            Self::Own => fs::read_to_string(format!("/proc/self/{file}")),
            Self::Other(id) => fs::read_to_string(format!("/proc/{id}/{file}")),
        }
    }
}

/// Returns how many bytes of memory a process has resident (`VmRSS` of proc_pid_status(5)).
pub fn resident(process: Process) -> io::Result<u64> {
    let status = process.read("status")?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "no VmRSS: the process has ended",
        )
    })
}

/// Returns how long the threads of a process that still run have been on a processor: the first number of
/// `/proc/…/schedstat`, in nanoseconds.
pub fn processor_time(process: Process) -> io::Result<Duration> {
    let threads = match process {
        Process::Own => fs::read_dir("/proc/self/task")?,
        Process::Other(id) => fs::read_dir(format!("/proc/{id}/task"))?,
    };
    let mut total = Duration::ZERO;
    for thread in threads {
        let line = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanoseconds = line.split(' ').next().and_then(|word| word.parse().ok());
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "a strange schedstat");
        total += Duration::from_nanos(nanoseconds.ok_or_else(strange)?);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_memory() {
        assert!(resident(Process::Own).unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        assert!(resident(Process::Other(u32::MAX)).is_err());
    }
}
