//! The socket's file: made with its permissions, in the place of a dead one only, and removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The listening admin socket. It outlives the actor that serves it; dropping it removes its file.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what stands at the path later may be another's.
    identity: (u64, u64),
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Somebody answers there.
    #[error("the admin socket {path} is in use by a running process", path = path.display())]
    InUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something else stands there, which is not ours to remove.
    #[error("{path} exists and is no socket", path = path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The operating system says no.
    #[error("cannot make the admin socket {path}: {source}", path = path.display())]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Makes the socket with these permissions. The file of a dead process is replaced. Must run within the runtime.
    ///
    /// # Errors
    /// A running process has this socket, something else has this name, or the file cannot be made.
    pub(crate) fn bind(path: &Path, mode: u32) -> Result<Self, AdminSocketError> {
        let failed = |source| AdminSocketError::Io { path: path.into(), source };
        match fs::symlink_metadata(path) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
            Ok(file) if !file.file_type().is_socket() => {
                return Err(AdminSocketError::NotASocket { path: path.into() });
            }
            Ok(_) => match Probe::connect(path) {
                Err(dead)
                    if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&dead.kind()) => {
                }
                // Nobody accepts just now and the queue is full: it lives.
                Ok(_) => return Err(AdminSocketError::InUse { path: path.into() }),
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => {
                    return Err(AdminSocketError::InUse { path: path.into() });
                }
                Err(source) => return Err(failed(source)),
            },
        }
        let listener = bind_with_mode(path, mode).map_err(failed)?;
        let file = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self { listener, path: path.into(), identity: (file.dev(), file.ino()) })
    }

    /// The next connection.
    ///
    /// # Errors
    /// As `accept(2)`; the socket stays good.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = |file: fs::Metadata| (file.dev(), file.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Binds in a folder that nobody else can enter and moves the socket to its place when its permissions are set:
/// there is no moment at which others could connect, and the file of a dead process is replaced in one step.
fn bind_with_mode(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("")).join(format!(".tds{}", std::process::id()));
    if let Err(why) = DirBuilder::new().mode(0o700).create(&folder) {
        // Left by a process that had our number and died just here.
        if why.kind() != io::ErrorKind::AlreadyExists {
            return Err(why);
        }
        fs::remove_dir_all(&folder)?;
        DirBuilder::new().mode(0o700).create(&folder)?;
    }
    let made = folder.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, Permissions::from_mode(mode))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    drop(fs::remove_dir_all(&folder));
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener as Other;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        (folder, path)
    }

    #[tokio::test]
    async fn the_socket_has_the_permissions_asked_for_and_leaves_nothing_else_behind() {
        let (folder, path) = place();
        let socket = AdminSocket::bind(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let _operator = UnixStream::connect(&path).await.unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn the_file_is_gone_when_the_socket_is() {
        let (_folder, path) = place();
        drop(AdminSocket::bind(&path, 0o600).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_dead_process_is_replaced() {
        let (_folder, path) = place();
        drop(Other::bind(&path).unwrap());
        assert!(path.exists(), "it leaves its file behind, as a killed process does");
        let socket = AdminSocket::bind(&path, 0o600).unwrap();
        let _operator = UnixStream::connect(&path).await.unwrap();
        socket.accept().await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_a_running_process_is_left_alone() {
        let (_folder, path) = place();
        let _running = Other::bind(&path).unwrap();
        let refused = AdminSocket::bind(&path, 0o600).unwrap_err();
        assert!(matches!(refused, AdminSocketError::InUse { .. }));
        assert!(refused.to_string().ends_with("is in use by a running process"), "{refused}");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_removed() {
        let (_folder, path) = place();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&path, 0o600), Err(AdminSocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_a_clear_error() {
        let (folder, _) = place();
        let refused = AdminSocket::bind(&folder.path().join("no/admin.sock"), 0o600).unwrap_err();
        assert!(refused.to_string().contains("cannot make the admin socket"), "{refused}");
    }

    #[tokio::test]
    async fn a_socket_that_was_replaced_by_another_process_is_not_removed() {
        let (_folder, path) = place();
        let socket = AdminSocket::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = Other::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
