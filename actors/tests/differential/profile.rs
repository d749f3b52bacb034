//! How real drivers log in: the LOGIN7s that fix what every later answer looks like.

use bytes::Bytes;
use tds::TdsVersion;
use tds::feature::{Feature, FeatureId};
use tds::login7::{Login7, OptionFlags1, OptionFlags2, OptionFlags3, Password};

use super::random::Random;

/// One driver as it logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub version: TdsVersion,
    packet_size: u32,
    flags1: u8,
    flags2: u8,
    flags3: u8,
    features: &'static [(FeatureId, &'static [u8])],
    /// The order of its features is another at each login.
    shuffles: bool,
    /// Its first packet is LOGIN7.
    pub without_prelogin: bool,
    /// A batch that it sends right after the login.
    pub greeting: Option<&'static str>,
}

const ODBC: u8 = 0x03;
const DB_LIBRARY: u8 = 0x00;

const PLAIN: Profile = Profile {
    name: "",
    version: TdsVersion::V7_4,
    packet_size: 4096,
    flags1: 0xE0,
    flags2: ODBC,
    flags3: 0x08,
    features: &[],
    shuffles: false,
    without_prelogin: false,
    greeting: None,
};

/// What CLIENTS.md of the drivers' tests shows of each ([`tests/drivers`]).
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "msodbcsql18",
        packet_size: 0,
        features: &[
            (FeatureId::USER_AGENT, b"1|msodbcsql18|18.5|Linux"),
            (FeatureId::SESSION_RECOVERY, b""),
            (FeatureId::DATA_CLASSIFICATION, &[2]),
            (FeatureId::UTF8_SUPPORT, b""),
            (FeatureId::AZURE_SQL_DNS_CACHING, b""),
        ],
        greeting: Some("SET QUOTED_IDENTIFIER ON"),
        ..PLAIN
    },
    Profile { name: "freetds-odbc", features: &[(FeatureId::UTF8_SUPPORT, b"")], ..PLAIN },
    Profile { name: "freetds-dblib", version: TdsVersion::V7_3A, flags2: DB_LIBRARY, ..PLAIN },
    Profile {
        name: "mssql-jdbc",
        packet_size: 8000,
        flags1: 0xF0,
        features: &[
            (FeatureId::COLUMN_ENCRYPTION, &[1]),
            (FeatureId::DATA_CLASSIFICATION, &[2]),
            (FeatureId::UTF8_SUPPORT, b""),
            (FeatureId::AZURE_SQL_DNS_CACHING, b""),
            (FeatureId::SESSION_RECOVERY, b""),
        ],
        greeting: Some("set implicit_transactions off"),
        ..PLAIN
    },
    Profile {
        name: "jtds",
        version: TdsVersion::V7_1_SP1,
        packet_size: 0,
        flags3: 0,
        without_prelogin: true,
        ..PLAIN
    },
    Profile {
        name: "sqlclient",
        packet_size: 8000,
        features: &[(FeatureId::SESSION_RECOVERY, b""), (FeatureId::GLOBAL_TRANSACTIONS, b"")],
        ..PLAIN
    },
    Profile { name: "go-mssqldb", flags1: 0, flags2: 0x02, flags3: 0, ..PLAIN },
    Profile {
        name: "tedious",
        features: &[(FeatureId::UTF8_SUPPORT, &[1])],
        greeting: Some(
            "set ansi_nulls on\nset ansi_null_dflt_on on\nset ansi_padding on\nset ansi_warnings on\nset arithabort on\nset concat_null_yields_null on\nset cursor_close_on_commit off\nset datefirst 7\nset dateformat mdy\nset implicit_transactions off\nset language us_english\nset numeric_roundabort off\nset quoted_identifier on\nset textsize 2147483647\nset transaction isolation level read committed\nset xact_abort off",
        ),
        ..PLAIN
    },
    Profile { name: "python-tds 7.2", version: TdsVersion::V7_2, ..PLAIN },
    Profile { name: "python-tds 7.3", version: TdsVersion::V7_3B, ..PLAIN },
    Profile { name: "tiberius", flags3: 0x18, ..PLAIN },
    Profile {
        name: "mssql-tds",
        packet_size: 8000,
        features: &[
            (FeatureId::USER_AGENT, b"1|mssql-tds|0.1|Linux"),
            (FeatureId::UTF8_SUPPORT, b""),
            (FeatureId::VECTOR_SUPPORT, &[1]),
            (FeatureId::SESSION_RECOVERY, b""),
            (FeatureId::JSON_SUPPORT, &[1]),
        ],
        shuffles: true,
        ..PLAIN
    },
];

impl Profile {
    pub fn is_7_2_or_later(self) -> bool {
        self.version.is_7_2_or_later()
    }

    /// The LOGIN7 of client `id`, whose program has this name.
    pub fn login(self, id: usize, application: &str, random: &mut Random) -> Login7 {
        let mut features: Vec<Feature> = self
            .features
            .iter()
            .map(|(id, data)| Feature { id: *id, data: Bytes::from_static(data) })
            .collect();
        if self.shuffles {
            random.shuffle(&mut features);
        }
        Login7 {
            tds_version: self.version,
            packet_size: self.packet_size,
            client_pid: 1000 + u32::try_from(id).unwrap_or(0),
            option_flags1: OptionFlags1(self.flags1),
            option_flags2: OptionFlags2(self.flags2),
            option_flags3: OptionFlags3(self.flags3),
            host_name: format!("host{id}"),
            user_name: "sa".to_owned(),
            password: Password::new("Sim-passw0rd"),
            app_name: application.to_owned(),
            server_name: "server".to_owned(),
            interface_name: self.name.to_owned(),
            database: "shop".to_owned(),
            features,
            ..Login7::default()
        }
    }
}
