package broker

import "testing"

func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"a.example": "a.example", "A.Example": "a.example", "a.example.": "a.example", "[::1]": "::1", "::FFFF:10.0.0.1": "10.0.0.1", "[2001:DB8::1]": "2001:db8::1", "10.0.0.1": "10.0.0.1",
		"": "", "a.example..": "a.example.", "xn--80ak6aa92e.com": "xn--80ak6aa92e.com", "ÄA.example": "äa.example", "fe80::1%eth0": "fe80::1%eth0", "a_b.Example": "a_b.example", "dead::beef": "dead::beef", "Dead::Beef": "dead::beef",
		"::ffff:0a00:0001": "10.0.0.1", "1.2.3.com": "1.2.3.com",
	} {
		if got := CanonicalHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
