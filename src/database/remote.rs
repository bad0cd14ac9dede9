//! Files and datasets on object stores: checks addresses, downloads, publishes.

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

use super::runtime::block_on;
use crate::error::{Error, Result, WrapErr};
use crate::interrupt::Interrupt;

/// The number of files that are copied concurrently.
const CONCURRENT_COPIES: usize = 8;

/// The version number of every published dataset. It determines the name of the manifest, so that the store accepts only one of
/// several concurrent builds, even if they made different numbers of commits.
const PUBLISHED_VERSION: u64 = 16;

/// The metadata key that is written to increase the version.
const META_PUBLISHED: &str = "uphill.published";

/// The folder of a dataset that holds its manifests.
const MANIFEST_FOLDER: &str = "_versions";

/// Whether this is the address of an object store and not a local path.
pub(crate) fn is_remote(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref().to_string_lossy();
    path.contains("://") && !path.starts_with("file://")
}

/// The local path of a `file://` address such as `file:///data/my%20library.lance`. Other paths are returned unchanged.
///
/// # Errors
/// An address that names another host.
pub(crate) fn local_path(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    let Some(address) = path.to_str().and_then(|text| text.strip_prefix("file:/")) else { return Ok(path.into()) };
    let (host, encoded) = match address.strip_prefix('/') {
        Some(address) => address.find('/').map_or((address, ""), |slash| address.split_at(slash)),
        None => ("", address),
    };
    if !matches!(host, "" | "localhost") {
        let reason = "names another host; write file:/// followed by an absolute path";
        return Err(Error::input(path, reason));
    }
    let bytes = encoded.as_bytes();
    let (mut position, mut decoded) = (0, vec![b'/'; usize::from(!encoded.starts_with('/'))]);
    while position < bytes.len() {
        let code = encoded.get(position + 1..position + 3).filter(|_| bytes[position] == b'%');
        let (byte, length) = match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => (byte, 3),
            None => (bytes[position], 1),
        };
        decoded.push(byte);
        position += length;
    }
    Ok(PathBuf::from(OsString::from_vec(decoded)))
}

/// Rejects a URI that contains a password or a signature, because messages and logs show the URI. Rejects the schemes of
/// stores that this build does not support.
pub(crate) fn check_uri(uri: impl AsRef<Path>) -> Result<()> {
    let uri = uri.as_ref().to_string_lossy();
    let Some((scheme, place)) = uri.split_once("://") else { return Ok(()) };
    let authority = place.split('/').next().unwrap_or_default();
    if authority.contains('@') || place.to_ascii_lowercase().contains("signature=") {
        return Err(Error::Config(format!(
            "a {scheme}:// address contains credentials; remove them and set them in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …)"
        )));
    }
    const STORES: [(&[&str], &str, bool); 3] = [
        (&["s3", "s3+ddb"], "aws", cfg!(feature = "aws")),
        (&["gs"], "gcp", cfg!(feature = "gcp")),
        (&["az", "abfs", "abfss"], "azure", cfg!(feature = "azure")),
    ];
    match STORES.iter().find(|(schemes, _, is_built)| schemes.contains(&scheme) && !is_built) {
        Some((_, feature, _)) => Err(Error::Config(format!(
            "{uri}: this build does not support {scheme}:// addresses; build it with `--features {feature}`, or use a released \
             wheel or binary, which support all stores"
        ))),
        None => Ok(()),
    }
}

/// The local path of a file or folder that may be on an object store. A downloaded copy is deleted on drop.
pub(crate) struct LocalPath {
    path: PathBuf,
    _copy: Option<TempDir>,
}

impl LocalPath {
    /// Resolves a file, a glob or a folder. From an object store, all of it is copied to the folder for temporary files.
    ///
    /// # Errors
    /// No such file; a store that does not answer or denies access; a full disk.
    pub(crate) fn fetch(path: &Path) -> Result<Self> {
        Self::fetch_until(path, &Interrupt::default())
    }

    /// As [`LocalPath::fetch`], with an interrupt that cancels the copy.
    pub(crate) fn fetch_until(path: &Path, interrupt: &Interrupt) -> Result<Self> {
        if !is_remote(path) {
            return Ok(LocalPath { path: local_path(path)?, _copy: None });
        }
        check_uri(path)?;
        let uri = path.to_string_lossy().into_owned();
        let copy = tempfile::tempdir().wrap_err("creating a temporary folder")?;
        // The part before the first wildcard is the folder to copy.
        let (folder, glob) = match uri.find(['*', '?', '[']).map(|at| uri[..at].rfind('/').unwrap_or(at)) {
            Some(at) => (uri[..at].to_string(), Some(uri[at + 1..].to_string())),
            None => (uri.trim_end_matches('/').to_string(), None),
        };
        let target = copy.path().join(folder.rsplit('/').next().unwrap_or_default());
        let pattern = glob.as_deref().map(glob::Pattern::new).transpose();
        let pattern = pattern.map_err(|error| Error::Config(format!("{uri}: not a glob: {error}")))?;
        let copied =
            copy_to_local(folder, target.clone(), pattern, interrupt).map_err(|error| error.with_path(path))?;
        if copied == 0 {
            return Err(Error::input(path, "no such file or folder"));
        }
        let path = match glob {
            Some(glob) => PathBuf::from(glob::Pattern::escape(&target.to_string_lossy())).join(glob),
            None => target,
        };
        Ok(LocalPath { path, _copy: Some(copy) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Copies the object at a URI, or the objects below it that match, to a local path. Returns the number of copied objects.
fn copy_to_local(uri: String, target: PathBuf, pattern: Option<glob::Pattern>, interrupt: &Interrupt) -> Result<usize> {
    let (local, interrupt) = (target.to_string_lossy().into_owned(), interrupt.clone());
    let fetched = async move {
        let (from, to) = (Location::open(&uri).await?, Location::open(&local).await?);
        if pattern.is_none() && from.store.exists(&from.key).await? {
            from.store.copy_via_stream(&from.key, &to.store, &to.key).await?;
            return Ok(1);
        }
        let mut names = from.list().await?;
        names.retain(|name| pattern.as_ref().is_none_or(|pattern| pattern.matches(name)));
        from.copy(&names, &to).await?;
        Ok::<_, lance::Error>(names.len())
    };
    block_on(async move { interrupt.run_async(fetched).await })??.wrap_err("downloading")
}

/// Copies one object to a local path, if it exists.
pub(crate) fn fetch_if_exists(uri: &str, target: &Path) -> Result<()> {
    copy_to_local(uri.to_string(), target.to_path_buf(), None, &Interrupt::default()).map(drop)
}

/// Whether there is a dataset at a URI.
pub(crate) fn dataset_exists(uri: &str) -> Result<bool> {
    let manifests = format!("{}/{MANIFEST_FOLDER}", uri.trim_end_matches('/'));
    let names = block_on(async move { Location::open(&manifests).await?.list().await })?;
    Ok(!names.wrap_err("listing objects")?.is_empty())
}

/// Copies a dataset from a local path to an object store that does not contain it yet. The manifest is written last, because
/// without it the dataset cannot be opened. Of two concurrent builds, the store accepts one manifest. An interrupt before the
/// manifest is written deletes the copied objects.
pub(crate) fn publish_dataset(dataset: &Path, uri: &str, interrupt: &Interrupt) -> Result<()> {
    let (local, remote) = (dataset.to_string_lossy().into_owned(), uri.trim_end_matches('/').to_string());
    let interrupt = interrupt.clone();
    let published = block_on(async move {
        let mut dataset = DatasetBuilder::from_uri(&local).load().await?;
        while dataset.version_id() < PUBLISHED_VERSION {
            dataset.update_metadata([(META_PUBLISHED, "")]).await?;
        }
        let (from, to) = (Location::open(&local).await?, Location::open(&remote).await?);
        let (manifests, names): (Vec<_>, Vec<_>) =
            from.list().await?.into_iter().partition(|name| name.starts_with(MANIFEST_FOLDER));
        // Manifests are named so that the latest sorts first.
        let manifest = manifests.into_iter().filter(|name| name.ends_with(".manifest")).min().unwrap_or_default();
        let bytes = from.store.read_one_all(&from.child(&manifest)).await?;
        let (copied, manifest) = (interrupt.run_async(from.copy(&names, &to)).await, to.child(&manifest));
        let (published, is_unused) = match copied.and_then(|copied| interrupt.check().map(|()| copied)) {
            Err(interrupted) => (Ok(Err(interrupted)), true),
            Ok(Err(error)) => (Err(error), true),
            Ok(Ok(())) => match to.store.put_if_absent(&manifest, bytes.clone().into()).await {
                Ok(()) => (Ok(Ok(())), false),
                // The write may have succeeded although the response was lost: compare the stored manifest.
                Err(error) => match to.store.read_one_all(&manifest).await {
                    Ok(stored) if stored == bytes => (Ok(Ok(())), false),
                    stored => (Err(error.into()), stored.is_ok()),
                },
            },
        };
        if is_unused {
            // No manifest refers to these files, and their names are unique to this build.
            for name in &names {
                let _ = to.store.delete(&to.child(name)).await;
            }
        }
        published
    })?;
    let published: Result<Result<()>> = published.wrap_err("publishing the dataset");
    published.map_err(|error| match dataset_exists(uri) {
        Ok(true) => Error::input(uri, "already exists: another build has just published it; choose another name"),
        _ => error.with_path(uri),
    })?
}

/// A location in an object store or on the local disk.
struct Location {
    store: Arc<ObjectStore>,
    key: Key,
}

impl Location {
    async fn open(uri: &str) -> lance::Result<Self> {
        let (store, key) = ObjectStore::from_uri(uri).await?;
        Ok(Location { store, key })
    }

    fn child(&self, name: &str) -> Key {
        name.split('/').fold(self.key.clone(), |key, part| key.join(part))
    }

    /// The names of all objects below this location.
    async fn list(&self) -> lance::Result<Vec<String>> {
        let objects: Vec<_> = self.store.list(Some(self.key.clone())).try_collect().await?;
        let name = |object: &ObjectMeta| {
            let parts: Vec<_> =
                object.location.prefix_match(&self.key)?.map(|part| part.as_ref().to_string()).collect();
            Some(parts.join("/"))
        };
        Ok(objects.iter().filter_map(name).collect())
    }

    /// Copies objects below this location to the same names below another one.
    async fn copy(&self, names: &[String], to: &Location) -> lance::Result<()> {
        let copies = names.iter().map(|name| {
            let (source, target) = (self.child(name), to.child(name));
            async move { self.store.copy_via_stream(&source, &to.store, &target).await.map(drop) }.boxed()
        });
        let copies = stream::iter(copies.collect::<Vec<_>>());
        copies.buffer_unordered(CONCURRENT_COPIES).try_collect().await
    }
}
