//! What of a login fixes the form and meaning of everything after it: two logins with equal profiles may share server
//! connections ([MS-TDS] 2.2.6.4; RESETCONNECTION renegotiates none of this).

use bytes::Bytes;

use crate::TdsVersion;
use crate::feature::{Feature, FeatureId};
use crate::login7::{Login7, OptionFlags1, OptionFlags2, OptionFlags3, TypeFlags};

/// A login without what may differ between sharers: names of machines and applications, process ids, passwords. The
/// user is not in it either; the pool keys on the principal beside the profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginProfile {
    /// The highest version that the client speaks.
    pub tds_version: TdsVersion,
    /// The packet size that the client asks for, in bytes; 0 leaves it to the server.
    pub packet_size: u32,
    /// Option bits.
    pub option_flags1: OptionFlags1,
    /// Option bits.
    pub option_flags2: OptionFlags2,
    /// Option bits.
    pub option_flags3: OptionFlags3,
    /// Type bits; the read-only intent is one of them.
    pub type_flags: TypeFlags,
    /// The client's collation.
    pub lcid: u32,
    /// The initial language, letter by letter.
    pub language: String,
    /// The initial database, letter by letter: on a server with a case-sensitive collation `Sales` and `sales` are
    /// two databases, and elsewhere telling them apart costs no more than a sub-pool.
    pub database: String,
    /// What the client offers, by number: some drivers shuffle their lists. USERAGENT is left out, it changes nothing;
    /// SESSIONRECOVERY and FEDAUTH stand without their data, which belongs to one connection.
    pub features: Vec<Feature>,
}

impl LoginProfile {
    /// The profile of a login.
    pub fn of(login: &Login7) -> Self {
        let mut features: Vec<Feature> = login
            .features
            .iter()
            .filter(|feature| feature.id != FeatureId::USER_AGENT)
            .map(|feature| match feature.id {
                FeatureId::SESSION_RECOVERY | FeatureId::FED_AUTH => {
                    Feature { id: feature.id, data: Bytes::new() }
                }
                _ => feature.clone(),
            })
            .collect();
        features.sort_by(|a, b| (a.id, &a.data).cmp(&(b.id, &b.data)));
        // Whether there is a list at all makes no difference.
        let option_flags3 = login.option_flags3.without(OptionFlags3::EXTENSION);
        Self {
            tds_version: login.tds_version,
            packet_size: login.packet_size,
            option_flags1: login.option_flags1,
            option_flags2: login.option_flags2,
            option_flags3,
            type_flags: login.type_flags,
            lcid: login.lcid,
            language: login.language.clone(),
            database: login.database.clone(),
            features,
        }
    }

    /// The application only reads.
    pub fn read_only_intent(&self) -> bool {
        self.type_flags.contains(TypeFlags::READ_ONLY_INTENT)
    }

    /// True if the client offers this feature.
    pub fn offers(&self, id: FeatureId) -> bool {
        self.features.iter().any(|feature| feature.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(id: FeatureId, data: &'static [u8]) -> Feature {
        Feature { id, data: Bytes::from_static(data) }
    }

    fn login() -> Login7 {
        Login7 {
            language: "us_english".into(),
            database: "Sales".into(),
            features: vec![
                feature(FeatureId::UTF8_SUPPORT, &[1]),
                feature(FeatureId::SESSION_RECOVERY, &[]),
                feature(FeatureId::USER_AGENT, b"1|driver 18.3|Linux 6.1"),
            ],
            ..Login7::default()
        }
    }

    #[test]
    fn who_and_where_the_client_is_does_not_split_a_pool() {
        let other = Login7 {
            host_name: "elsewhere".into(),
            app_name: "another".into(),
            server_name: "alias".into(),
            interface_name: "other library".into(),
            client_pid: 77,
            client_version: 3,
            client_id: [9; 6],
            time_zone: 120,
            user_name: "someone".into(),
            password: "secret".into(),
            database: "Sales".into(),
            language: login().language,
            features: vec![
                feature(FeatureId::USER_AGENT, b"1|driver 18.4|Linux 6.2"),
                feature(FeatureId::SESSION_RECOVERY, b"state of an old connection"),
                feature(FeatureId::UTF8_SUPPORT, &[1]),
            ],
            ..login()
        };
        assert_eq!(LoginProfile::of(&other), LoginProfile::of(&login()));
    }

    #[test]
    fn whatever_changes_the_responses_splits_a_pool() {
        let base = LoginProfile::of(&login());
        let change = |edit: fn(&mut Login7)| {
            let mut login = login();
            edit(&mut login);
            LoginProfile::of(&login)
        };
        let changed = [
            change(|login| login.tds_version = TdsVersion::V7_3B),
            change(|login| login.packet_size = 8000),
            change(|login| login.option_flags1 = OptionFlags1(0)),
            change(|login| login.option_flags2 = OptionFlags2(0)),
            change(|login| login.option_flags3 = OptionFlags3(0)),
            change(|login| login.type_flags = TypeFlags::READ_ONLY_INTENT),
            change(|login| login.lcid = 0x0407),
            change(|login| login.language = "Deutsch".into()),
            change(|login| login.database = "Stock".into()),
            change(|login| login.features.truncate(1)),
            change(|login| login.features[0].data = Bytes::from_static(&[0])),
            change(|login| login.features.push(feature(FeatureId::JSON_SUPPORT, &[1]))),
        ];
        for profile in changed {
            assert_ne!(profile, base);
        }
    }

    #[test]
    fn a_profile_holds_no_token() {
        let federated = Login7 { features: vec![feature(FeatureId::FED_AUTH, b"token")], ..login() };
        let profile = LoginProfile::of(&federated);
        assert!(profile.offers(FeatureId::FED_AUTH));
        assert!(profile.features.iter().all(|feature| feature.data.is_empty()));
    }
}
