//! Keys that name folders, programs and documents on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::PresetDocument;
use super::super::document::Document;
use super::Check;

/// Most bytes of one preset document: they are written by hand.
const MAX_PRESET_BYTES: u64 = 1024 * 1024;

impl Check<'_> {
    /// A root may be a mount that comes later, so a missing one is a warning; `/` would open the machine.
    pub(super) fn roots(&mut self, key: &str, texts: &[String]) -> Vec<PathBuf> {
        let mut roots = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let (key, root) = (format!("{key}[{n}]"), self.path(text));
            if text.is_empty() || root.parent().is_none() {
                self.fault(&key, "expected a folder below /");
            } else if !root.is_dir() {
                self.warnings.push(format!("{key}: there is no folder {}", root.display()));
            }
            roots.push(root);
        }
        roots
    }

    /// A bare name is looked up now, because children are started without an environment. A program that is missing
    /// is no fault of the configuration: the worker says `tool_missing`, with how to install it.
    pub(super) fn program(&mut self, key: &str, name: &str) -> PathBuf {
        if name.is_empty() {
            self.fault(key, "is empty");
        }
        if name.contains('/') {
            return self.path(name);
        }
        let path = self.around.env.get("PATH").map(String::as_str).unwrap_or_default();
        let found = path
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| self.around.cwd.join(folder).join(name))
            .find(|program| is_executable(program));
        found.unwrap_or_else(|| PathBuf::from(name))
    }

    pub(super) fn presets(&mut self, document: &Document) -> Vec<PresetDocument> {
        let Some(dir) = &document.presets.dir else {
            return Vec::new();
        };
        let read = read_presets(&self.path(dir));
        self.ok("presets.dir", read).unwrap_or_default()
    }
}

fn read_presets(dir: &Path) -> Result<Vec<PresetDocument>, String> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("cannot read {path}: {error}")
    };
    let mut documents = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let size = fs::metadata(&path).map_err(unreadable(&path))?.len();
        if size > MAX_PRESET_BYTES {
            return Err(format!("{} is larger than 1 MiB", path.display()));
        }
        let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        documents.push(PresetDocument { file, text });
    }
    documents.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(documents)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
