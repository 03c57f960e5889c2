//! Spellings by which a URL tries to reach inside, and the rules that let an operator permit it.

use super::*;

fn policy(rules: &[&str]) -> AddressPolicy {
    AddressPolicy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect())
}

/// Refused by [`AddressPolicy::check_url`] or no URL at all.
fn refused(policy: &AddressPolicy, url: &str) -> bool {
    Url::parse(url).map_or(true, |url| policy.check_url(&url).is_err())
}

#[test]
fn no_spelling_of_an_inner_address_passes() {
    let none = AddressPolicy::default();
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://0x7F.0.0.0x1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0300.0250.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.1:80/",
        "http://0/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://10.255.255.255/",
        "http://100.64.0.1/",
        "http://100.100.100.200/latest/meta-data/",
        "http://168.63.129.16/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://172.16.0.1/",
        "http://172.31.255.255/",
        "http://192.0.0.192/",
        "http://192.168.1.1/",
        "http://198.18.0.1/",
        "http://198.51.100.7/",
        "http://203.0.113.9/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::]/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[2001:db8::1]/",
        "http://[fc00::1]/",
        "http://[fdaa:0:1::3]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[fe80::1%25eth0]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://example.com@127.0.0.1/",
        "http://example.com:80@127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://127.0.0.1#@example.com/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://ⓛocalhost/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1%00.example.com/",
        "http://8.8.8.8:22/",
        "http://example.com:6379/",
        "https://example.com:80801/",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:video/mp4;base64,AAAA",
        "//example.com/x",
        "",
    ] {
        assert!(refused(&none, url), "{url}");
    }
}

#[test]
fn public_addresses_and_names_pass() {
    let none = AddressPolicy::default();
    for url in [
        "http://example.com/in.mp4",
        "https://user:pw@example.com/in.mp4?sig=1",
        "https://EXAMPLE.com./x",
        "https://example.com:80/",
        "http://example.com:443/",
        "http://8.8.8.8/",
        "http://100.63.255.255/",
        "http://172.32.0.1/",
        "http://192.0.1.1/",
        "http://223.255.255.255/",
        "http://[2606:4700::1111]/",
        "https://bücher.example/",
        "http://127.0.0.1.example.com/",
    ] {
        assert!(!refused(&none, url), "{url}");
    }
}

#[test]
fn rules_open_exactly_what_they_name() {
    let rules =
        policy(&["127.0.0.0/8", "10.1.2.3:9000", "[::1]:8080", "fd00::/8", "nas.lan", "*.svc.local:8000"]);
    for open in [
        "http://127.0.0.1:43210/",
        "http://[::ffff:127.0.0.1]:9/",
        "http://localhost:9/",
        "http://10.1.2.3:9000/",
        "http://[::1]:8080/",
        "http://[fd12::1]/",
        "http://NAS.lan.:8200/",
        "http://a.b.svc.local:8000/",
    ] {
        assert!(!refused(&rules, open), "{open}");
    }
    for shut in
        ["http://10.1.2.3/", "http://10.1.2.4:9000/", "http://[::1]/", "http://192.168.0.1/", "file:///x"]
    {
        assert!(refused(&rules, shut), "{shut}");
    }
    let named = policy(&["nas.lan", "*.svc.local:8000"]);
    let inside = IpAddr::from([192, 168, 0, 9]);
    assert!(named.permits("nas.lan", inside, 8200));
    assert!(!named.permits("evilnas.lan", inside, 80));
    assert!(!named.permits("svc.local", inside, 8000));
    assert!(!named.permits("a.svc.local", inside, 8001));
    assert!(!named.permits("other.example", inside, 80), "a public name that resolves inside");
    assert!(refused(&named, "http://other.example:8200/"), "a rule for one name opens no port of another");
}

#[test]
fn rules_read_back_as_they_are_shown() {
    for text in
        ["10.0.0.0/8", "fd00::/8", "[::1/128]:8080", "10.1.2.3/32:9000", "nas.lan", "*.svc.local:8000"]
    {
        let rule: AllowRule = text.parse().unwrap();
        assert_eq!(rule.to_string(), text);
    }
    for bad in
        ["", "10.0.0.0/33", "fd00::/129", "host:0", "host:99999", "a b", "*.", "*", "http://x/", "::1/x"]
    {
        assert!(bad.parse::<AllowRule>().is_err(), "{bad}");
    }
}

#[test]
fn the_refusal_names_the_setting_and_nothing_else() {
    let failure = AddressPolicy::default()
        .check_url(&Url::parse("http://10.0.0.7:22/secret?k=v").unwrap())
        .unwrap_err();
    assert_eq!(failure.code, Code::SourceBlocked);
    assert!(failure.message.contains("sources.allow"));
    assert!(!failure.message.contains("10.0.0.7") && !failure.message.contains("22"));
    assert!(!failure.detail.contains("secret"));
}
