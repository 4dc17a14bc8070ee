//! What several test modules need.

use std::path::{Path, PathBuf};

/// The root of the package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether snapshots are to be rewritten rather than compared: `UPDATE_SNAPSHOTS=1 cargo test`.
pub fn updating() -> bool {
    std::env::var_os("UPDATE_SNAPSHOTS").is_some_and(|value| value == "1")
}

/// Compares `actual` with a snapshot under `tests/`, or rewrites the snapshot.
pub fn assert_snapshot(relative: &str, actual: &str) {
    let path = root().join("tests").join(relative);
    if updating() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "tests/{relative} differs; if the change is meant, run UPDATE_SNAPSHOTS=1 cargo test --test all\n\
         --- expected\n{expected}\n--- actual\n{actual}"
    );
}

/// Every file below `folder` whose name ends in `ending`, sorted.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
