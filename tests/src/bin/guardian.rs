//! Removes a test cluster when the process that made it is gone.

fn main() -> anyhow::Result<()> {
    shoal_tests::Guardian::serve()
}
