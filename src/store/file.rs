//! The file: opened once, locked against others, made whole or not at all, opened again after a failed write.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, TableDefinition,
    WriteTransaction,
};

use super::error::{Fault, StoreError};

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "weft.redb";

/// What stands in the file's first bytes when it is a redb database.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The version of the tables and of what is in them.
const FORMAT: u16 = 1;

/// Small things, by name.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft_meta");

/// How much of the file redb may keep in memory. The default of a gigabyte is for other programs, and the kernel keeps it too.
const CACHE_BYTES: usize = 1024 * 1024;

/// Opens the database at a path that is known to be one.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The database and what guards it.
pub(super) struct DataFile {
    path: PathBuf,
    opener: Opener,
    /// Nothing after a failed write, until the file was opened again.
    database: RwLock<Option<Database>>,
    /// Holds the lock on the directory: the file itself may not be there yet when two daemons start.
    _lock: File,
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataFile").field(&self.path).finish()
    }
}

impl DataFile {
    /// Opens the file in `directory`, and makes both if they are not there.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let open = move || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder.set_check_integrity_on_open(true);
            builder.open(&path)
        };
        Self::open_with(directory, Box::new(open))
    }

    /// As [`Self::open`], but what opens the database is the caller's.
    pub(super) fn open_with(directory: &Path, opener: Opener) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        let at = |fault: Fault| fault.at(path.clone());
        let lock = lock(directory).map_err(|fault| fault.at(path.clone()))?;
        if !path.try_exists().map_err(Fault::Io).map_err(at)? {
            create(directory, &path).map_err(at)?;
        }
        let database = open(&path, &opener)?;
        Ok(Self {
            path,
            opener,
            database: RwLock::new(Some(database)),
            _lock: lock,
        })
    }

    /// Runs `body` in a write transaction; if anything fails, nothing was written.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        body: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction
                .set_durability(durability)
                .map_err(|refused| Fault::Corrupt(refused.to_string()))?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Runs `body` on the state as it is now.
    pub(super) fn read<T>(
        &self,
        body: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with(|database| body(&database.begin_read()?))
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        let result = {
            let mut database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if database.is_none() {
                drop(database);
                self.open_again()?;
                database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            }
            match database.as_ref() {
                Some(database) => act(database),
                None => Err(Fault::Latched),
            }
        };
        // After a failed write redb refuses everything until the file is opened again.
        if matches!(result, Err(Fault::Io(_) | Fault::Latched)) {
            let mut database = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *database = None;
        }
        result.map_err(|fault| fault.at(self.path.clone()))
    }

    fn open_again(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open(&self.path, &self.opener)?);
        }
        Ok(())
    }
}

/// Locks the directory until the file handle is dropped or the process dies.
fn lock(directory: &Path) -> Result<File, Fault> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).map_err(Fault::Io)?;
    let file = File::open(directory).map_err(Fault::Io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Fault::InUse),
        Err(TryLockError::Error(error)) => Err(Fault::Io(error)),
    }
}

/// Makes an empty data file under another name first, so that a crash never leaves half a one.
fn create(directory: &Path, path: &Path) -> Result<(), Fault> {
    let unfinished = path.with_extension("redb.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Fault::Io(error)),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&unfinished).map_err(Fault::Io)?;
    let database = Database::builder().create(&unfinished)?;
    let transaction = database.begin_write()?;
    transaction
        .open_table(META)?
        .insert("format", FORMAT.to_be_bytes().as_slice())?;
    transaction.commit()?;
    drop(database);
    fs::rename(&unfinished, path).map_err(Fault::Io)?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Fault::Io)
}

fn open(path: &Path, opener: &Opener) -> Result<Database, StoreError> {
    let at = |fault: Fault| fault.at(path.to_owned());
    let foreign = || StoreError::Foreign {
        path: path.to_owned(),
    };
    if !has_magic(path).map_err(Fault::Io).map_err(at)? {
        return Err(foreign());
    }
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, mode)
        .map_err(Fault::Io)
        .map_err(at)?;
    // redb checks what it reads, but not everywhere before it relies on it: what it finds broken the hard way is damage too.
    let opened = panic::catch_unwind(AssertUnwindSafe(|| {
        let database = opener()?;
        let format = format_of(&database)?;
        Ok((database, format))
    }));
    let (database, format) = match opened {
        Ok(opened) => opened.map_err(at)?,
        Err(_panic) => return Err(at(Fault::Corrupt("its pages do not fit together".into()))),
    };
    match format {
        Some(FORMAT) => Ok(database),
        Some(found) => Err(StoreError::Format {
            path: path.to_owned(),
            found,
            expected: FORMAT,
        }),
        None => Err(foreign()),
    }
}

fn has_magic(path: &Path) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    match File::open(path)?.read_exact(&mut first) {
        Ok(()) => Ok(first == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the file's format; nothing if it is some other program's database.
fn format_of(database: &Database) -> Result<Option<u16>, Fault> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let format = table.get("format")?;
    let bytes = format.and_then(|format| format.value().try_into().ok());
    Ok(bytes.map(u16::from_be_bytes))
}
