//! Files on an object store: fetched before they are read, published when they are whole.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use lance::dataset::builder::DatasetBuilder;
use lance::io::ObjectStore;
use object_store::ObjectMeta;
use object_store::path::Path as Key;
use tempfile::TempDir;

use super::runtime::on_runtime;
use crate::error::{Doing, Error, Result};
use crate::interrupt::Interrupt;

/// Files that are copied at the same time.
const COPIES: usize = 8;

/// The version that every library is published as. Builds differ in the commits they take; with one name for all
/// manifests, a store lets only one of those through that are published at once.
const PUBLISHED_AS: u64 = 16;

/// The key under which versions are counted up.
const META_PUBLISHED: &str = "uphill.published";

/// Where a dataset keeps its manifests.
const MANIFESTS: &str = "_versions";

/// Whether this names a place on an object store, not one of this machine's disks.
pub(crate) fn is_remote(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref().to_string_lossy();
    path.contains("://") && !path.starts_with("file://")
}

/// The path that a `file://` address means, as `file:///data/my%20library.lance`; other paths as they are.
///
/// # Errors
/// An address of another machine.
pub(crate) fn on_disk(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    let Some(place) = path.to_str().and_then(|text| text.strip_prefix("file:/")) else { return Ok(path.into()) };
    let (host, place) = match place.strip_prefix('/') {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", place),
    };
    if !matches!(host, "" | "localhost") {
        let reason = "names another machine; write file:/// and the path from the root on";
        return Err(Error::input(path, reason));
    }
    let bytes = place.as_bytes();
    let (mut at, mut decoded) = (0, vec![b'/'; usize::from(!place.starts_with('/'))]);
    while at < bytes.len() {
        let code = place.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let (byte, length) = match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => (byte, 3),
            None => (bytes[at], 1),
        };
        decoded.push(byte);
        at += length;
    }
    Ok(PathBuf::from(OsString::from_vec(decoded)))
}

/// Refuses a URI that holds a password or a signature, which would be told and logged wherever the library is named; and one
/// of a store that this build does not read.
pub(crate) fn check_uri(uri: impl AsRef<Path>) -> Result<()> {
    let uri = uri.as_ref().to_string_lossy();
    let Some((scheme, place)) = uri.split_once("://") else { return Ok(()) };
    let authority = place.split('/').next().unwrap_or_default();
    if authority.contains('@') || place.to_ascii_lowercase().contains("signature=") {
        return Err(Error::Config(format!(
            "a {scheme}:// address holds credentials; take them out: they come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …)"
        )));
    }
    const STORES: [(&[&str], &str, bool); 3] = [
        (&["s3", "s3+ddb"], "aws", cfg!(feature = "aws")),
        (&["gs"], "gcp", cfg!(feature = "gcp")),
        (&["az", "abfs", "abfss"], "azure", cfg!(feature = "azure")),
    ];
    match STORES.iter().find(|(schemes, _, is_built)| schemes.contains(&scheme) && !is_built) {
        Some((_, feature, _)) => Err(Error::Config(format!(
            "{uri}: this build reads no {scheme}:// addresses; build it with `--features {feature}`, or take a released wheel or \
             binary, which have all stores"
        ))),
        None => Ok(()),
    }
}

/// A path of this machine for what may be on an object store: what was fetched goes when this does.
pub(crate) struct Local {
    path: PathBuf,
    _fetched: Option<TempDir>,
}

impl Local {
    /// A file, a glob, or a folder. Of an object store it is copied to the folder for temporary files, all of it.
    ///
    /// # Errors
    /// Nothing there; a store that does not answer, or does not know who asks; a disk that is full.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        Self::until(path, &Interrupt::default())
    }

    /// As [`Local::of`], until it is interrupted.
    pub(crate) fn until(path: &Path, interrupt: &Interrupt) -> Result<Self> {
        if !is_remote(path) {
            return Ok(Local { path: on_disk(path)?, _fetched: None });
        }
        check_uri(path)?;
        let uri = path.to_string_lossy().into_owned();
        let fetched = tempfile::tempdir().doing("a folder for what is fetched")?;
        // What stands before the first wildcard is a folder, and its name at the end of what is fetched.
        let (folder, glob) = match uri.find(['*', '?', '[']).map(|at| uri[..at].rfind('/').unwrap_or(at)) {
            Some(at) => (uri[..at].to_string(), Some(uri[at + 1..].to_string())),
            None => (uri.trim_end_matches('/').to_string(), None),
        };
        let target = fetched.path().join(folder.rsplit('/').next().unwrap_or_default());
        let pattern = glob.as_deref().map(glob::Pattern::new).transpose();
        let pattern = pattern.map_err(|error| Error::Config(format!("{uri}: not a glob: {error}")))?;
        let copied = fetch(folder, target.clone(), pattern, interrupt).map_err(|error| error.of(path))?;
        if copied == 0 {
            return Err(Error::input(path, "no such file or folder"));
        }
        let path = match glob {
            Some(glob) => PathBuf::from(glob::Pattern::escape(&target.to_string_lossy())).join(glob),
            None => target,
        };
        Ok(Local { path, _fetched: Some(fetched) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Copies the object at a URI, or those below it that match, to a path of this machine; how many.
fn fetch(uri: String, target: PathBuf, pattern: Option<glob::Pattern>, interrupt: &Interrupt) -> Result<usize> {
    let (local, interrupt) = (target.to_string_lossy().into_owned(), interrupt.clone());
    let fetched = async move {
        let (from, to) = (Place::at(&uri).await?, Place::at(&local).await?);
        if pattern.is_none() && from.store.exists(&from.key).await? {
            from.store.copy_via_stream(&from.key, &to.store, &to.key).await?;
            return Ok(1);
        }
        let mut names = from.names().await?;
        names.retain(|name| pattern.as_ref().is_none_or(|pattern| pattern.matches(name)));
        from.copy(&names, &to).await?;
        Ok::<_, lance::Error>(names.len())
    };
    on_runtime(async move { interrupt.or(fetched).await })??.doing("fetching it")
}

/// Copies one object, if it is there, to a path of this machine.
pub(crate) fn fetch_if_there(uri: &str, target: &Path) -> Result<()> {
    fetch(uri.to_string(), target.to_path_buf(), None, &Interrupt::default()).map(drop)
}

/// Whether there is a dataset at a URI.
pub(crate) fn holds_dataset(uri: &str) -> Result<bool> {
    let manifests = format!("{}/{MANIFESTS}", uri.trim_end_matches('/'));
    let there = on_runtime(async move { Place::at(&manifests).await?.names().await })?;
    Ok(!there.doing("looking what is there")?.is_empty())
}

/// Copies a dataset, whole, from a path of this machine to an object store, where none is. What makes it a dataset, the
/// manifest of its version, comes last: before it nobody can open it, and of two that are published at once one is refused.
/// An interrupt before that takes away what was copied.
pub(crate) fn publish(dataset: &Path, uri: &str, interrupt: &Interrupt) -> Result<()> {
    let (local, remote) = (dataset.to_string_lossy().into_owned(), uri.trim_end_matches('/').to_string());
    let interrupt = interrupt.clone();
    let published = on_runtime(async move {
        let mut dataset = DatasetBuilder::from_uri(&local).load().await?;
        while dataset.version_id() < PUBLISHED_AS {
            dataset.update_metadata([(META_PUBLISHED, "")]).await?;
        }
        let (from, to) = (Place::at(&local).await?, Place::at(&remote).await?);
        let (manifests, names): (Vec<_>, Vec<_>) =
            from.names().await?.into_iter().partition(|name| name.starts_with(MANIFESTS));
        // Named so that the latest is the first.
        let manifest = manifests.into_iter().filter(|name| name.ends_with(".manifest")).min().unwrap_or_default();
        let bytes = from.store.read_one_all(&from.below(&manifest)).await?;
        let (copied, manifest) = (interrupt.or(from.copy(&names, &to)).await, to.below(&manifest));
        let (done, is_ours_alone) = match copied.and_then(|copied| interrupt.check().map(|()| copied)) {
            Err(interrupted) => (Ok(Err(interrupted)), true),
            Ok(Err(error)) => (Err(error), true),
            Ok(Ok(())) => match to.store.put_if_absent(&manifest, bytes.clone().into()).await {
                Ok(()) => (Ok(Ok(())), false),
                // The answer may have been lost, not the manifest: what is there says whose it is.
                Err(error) => match to.store.read_one_all(&manifest).await {
                    Ok(there) if there == bytes => (Ok(Ok(())), false),
                    there => (Err(error.into()), there.is_ok()),
                },
            },
        };
        if is_ours_alone {
            // No manifest names these files: their names are of this build.
            for name in &names {
                let _ = to.store.delete(&to.below(name)).await;
            }
        }
        done
    })?;
    let published: Result<Result<()>> = published.doing("publishing the dataset");
    published.map_err(|error| match holds_dataset(uri) {
        Ok(true) => Error::input(uri, "already exists: another build published it meanwhile; choose another name"),
        _ => error.of(uri),
    })?
}

/// A place in a store, here or elsewhere.
struct Place {
    store: Arc<ObjectStore>,
    key: Key,
}

impl Place {
    async fn at(uri: &str) -> lance::Result<Self> {
        let (store, key) = ObjectStore::from_uri(uri).await?;
        Ok(Place { store, key })
    }

    fn below(&self, name: &str) -> Key {
        name.split('/').fold(self.key.clone(), |key, part| key.join(part))
    }

    /// The names of all objects below it.
    async fn names(&self) -> lance::Result<Vec<String>> {
        let objects: Vec<_> = self.store.list(Some(self.key.clone())).try_collect().await?;
        let name = |object: &ObjectMeta| {
            let parts: Vec<_> =
                object.location.prefix_match(&self.key)?.map(|part| part.as_ref().to_string()).collect();
            Some(parts.join("/"))
        };
        Ok(objects.iter().filter_map(name).collect())
    }

    /// Copies objects below it to the same names below another place.
    async fn copy(&self, names: &[String], to: &Place) -> lance::Result<()> {
        let copies = names.iter().map(|name| {
            let (source, target) = (self.below(name), to.below(name));
            async move { self.store.copy_via_stream(&source, &to.store, &target).await.map(drop) }.boxed()
        });
        let copies = stream::iter(copies.collect::<Vec<_>>());
        copies.buffer_unordered(COPIES).try_collect().await
    }
}
