//! The option and type bits of LOGIN7: what the client expects of the session ([MS-TDS] 2.2.6.4).

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u8);

        impl $name {
            /// True if all bits of `other` are set.
            pub fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// With the bits of `other` set.
            #[must_use]
            pub fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// With the bits of `other` cleared.
            #[must_use]
            pub fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:#04x}", self.0)
            }
        }
    };
}

bits! {
    /// OptionFlags1.
    OptionFlags1
}

impl OptionFlags1 {
    /// Numbers are big endian; SQL Server 7.0 only.
    pub const BIG_ENDIAN: Self = Self(0x01);
    /// Text is EBCDIC.
    pub const EBCDIC: Self = Self(0x02);
    /// The two bits of the floating point format; 0 is IEEE 754.
    pub const FLOAT: Self = Self(0x0C);
    /// No dump, load or bulk copy.
    pub const DUMP_LOAD_OFF: Self = Self(0x10);
    /// Tell the client when the database changes.
    pub const USE_DB: Self = Self(0x20);
    /// No login without the initial database.
    pub const DATABASE_FATAL: Self = Self(0x40);
    /// Tell the client when the language changes.
    pub const SET_LANGUAGE: Self = Self(0x80);
}

bits! {
    /// OptionFlags2.
    OptionFlags2
}

impl OptionFlags2 {
    /// No login without the initial language.
    pub const LANGUAGE_FATAL: Self = Self(0x01);
    /// An ODBC driver: the session begins with ANSI_DEFAULTS ON and the like.
    pub const ODBC: Self = Self(0x02);
    /// The three bits of the kind of user (1 server, 2 distributed query, 3 replication).
    pub const USER_TYPE: Self = Self(0x70);
    /// Integrated authentication.
    pub const INTEGRATED_SECURITY: Self = Self(0x80);
}

bits! {
    /// TypeFlags.
    TypeFlags
}

impl TypeFlags {
    /// The four bits of the SQL dialect.
    pub const SQL_TYPE: Self = Self(0x0F);
    /// An OLE DB driver: the session begins as with [`OptionFlags2::ODBC`].
    pub const OLEDB: Self = Self(0x10);
    /// The application only reads.
    pub const READ_ONLY_INTENT: Self = Self(0x20);
}

bits! {
    /// OptionFlags3.
    OptionFlags3
}

impl OptionFlags3 {
    /// The login changes its password.
    pub const CHANGE_PASSWORD: Self = Self(0x01);
    /// XML comes in the binary format.
    pub const BINARY_XML: Self = Self(0x02);
    /// The client wants an instance of its own.
    pub const USER_INSTANCE: Self = Self(0x04);
    /// The client copes with collations that it does not know.
    pub const UNKNOWN_COLLATIONS: Self = Self(0x08);
    /// There is a list of features.
    pub const EXTENSION: Self = Self(0x10);
}
