//! Places where a test has the process die.

/// Names the place, in the environment of a process that is to die there.
#[cfg(test)]
pub(crate) const PLACE: &str = "GYRE_TEST_CRASH_AT";

#[cfg(test)]
pub(super) fn point(place: &str) {
    if std::env::var(PLACE).is_ok_and(|wanted| wanted == place) {
        std::process::abort();
    }
}

#[cfg(not(test))]
pub(super) const fn point(_place: &str) {}

#[cfg(test)]
mod tests;
