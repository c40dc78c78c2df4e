//! Shrinking: the shortest schedule found that still violates the same property (delta debugging, Zeller and Hildebrandt 2002).

use super::{Chaos, Violation};

/// Removes what is not needed for a violation, a chunk at a time, with at most `runs` runs. Returns what is left and what it
/// violates; nothing if the run violates nothing.
pub fn shrink(chaos: &Chaos, mut runs: usize) -> Option<(Chaos, Violation)> {
    let mut violation = chaos.run().err()?;
    let mut shortest = chaos.clone();
    let mut chunk = shortest.schedule.len().div_ceil(2);
    while chunk > 0 && runs > 0 {
        let mut start = 0;
        let mut has_shrunk = false;
        while start < shortest.schedule.len() && runs > 0 {
            runs -= 1;
            let mut shorter = shortest.clone();
            let end = (start + chunk).min(shorter.schedule.len());
            shorter.schedule.drain(start..end);
            match shorter.run() {
                Err(same) if same.property == violation.property => {
                    shortest = shorter;
                    violation = same;
                    has_shrunk = true;
                }
                Err(_) | Ok(_) => start += chunk,
            }
        }
        if !has_shrunk || chunk > 1 {
            chunk /= 2;
        }
    }
    Some((shortest, violation))
}
