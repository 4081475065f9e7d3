package formats

import (
	"encoding/base64"
	"strings"
	"testing"
)

// encode writes text in base64 behind 0, 1 or 2 other bytes, so that it comes
// at each alignment.
func encode(before int, text string) string {
	return base64.StdEncoding.EncodeToString([]byte("::"[:before] + text + "\n"))
}

func TestBoundaries(t *testing.T) {
	s := newSet(t, Options{})
	token := Sample("github-pat", 7)
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"alone":                  {token, true},
		"colour before":          {"\x1b[32m" + token + "\x1b[0m", true}, // "m" is a word character
		"bold and bright before": {"\x1b[1;92m" + token, true},
		"colour written out":     {`"\u001b[32m` + token + `\u001b[0m"`, true},
		"colour in octal":        {`\033[0;31m` + token, true},
		"line break written out": {`"one\n` + token + `\n"`, true},
		"percent before":         {"token%3D" + token + "%26", true},
		"unicode escape before":  {`"token\u003d` + token + `"`, true},
		"in a URL":               {"https://x-access-token:" + token + "@github.com/a/b", true},
		"end of a sentence":      {"It is " + token + ".", true},
		"in a word":              {"x" + token, false},
		"in a name":              {"my_" + token, false},
		"in a number":            {"7" + token, false},
		"bracket that is none":   {"a[3m" + token, false},
		"cut short":              {token[:39] + " ", false},
		"wrong checksum":         {token[:39] + flip(token[39]), true},
		"made up by hand":        {"ghp_" + strings.Repeat("abcdef", 6), false},
	} {
		list := s.Scan([]byte(c.text), "")
		if got := has(list, "github-pat"); got != c.want || len(list) > 1 {
			t.Errorf("%s: %v", name, list)
		}
		if name == "wrong checksum" && len(list) == 1 && list[0].Confidence != Medium {
			t.Errorf("%s: %v", name, list)
		}
	}
}

func flip(c byte) string {
	if c == 'a' {
		return "b"
	}
	return "a"
}

func TestInsideBase64(t *testing.T) {
	s := newSet(t, Options{})
	for _, id := range []string{"github-pat", "gitlab-pat", "anthropic-api-key", "aws-access-token", "private-key", "npm-access-token", "google-oauth-client-secret", "slack-bot-token"} {
		secret := Sample(id, 0)
		if id == "private-key" {
			secret, _ = expand("{pem:rsa}", 1)
		}
		for before := range 3 {
			text := encode(before, secret)
			for name, b := range map[string]string{
				"a line":      "data: " + text + "\n",
				"url safe":    strings.NewReplacer("+", "-", "/", "_").Replace(text),
				"no padding":  strings.TrimRight(text, "=") + " ",
				"in a string": `{"content": "` + text + `"}`,
			} {
				list := s.Scan([]byte(b), "")
				if !has(list, id) || list[0].Encoding != "base64" {
					t.Errorf("%s at alignment %d, %s: %v", id, before, name, list)
				}
			}
			var wrapped strings.Builder
			long := encode(0, strings.Repeat(".", 60+before)+secret)
			for i := 0; i < len(long); i += 76 {
				wrapped.WriteString(long[i:min(len(long), i+76)] + "\n")
			}
			if list := s.Scan([]byte(wrapped.String()), ""); id == "private-key" && !has(list, id) {
				t.Errorf("%s wrapped, at alignment %d: %v", id, before, list)
			}
		}
	}
	// What a decoder of everything would find in random base64 is none.
	text := []byte("Zm9v" + encode(1, "xghp_"+strings.Repeat("A", 36)))
	if list := s.Scan(text, ""); len(list) != 0 {
		t.Errorf("found in %q: %v", text, list)
	}
}

func TestThroughEscapesOfTheTerminal(t *testing.T) {
	s := newSet(t, Options{})
	token := Sample("github-pat", 9)
	for name, text := range map[string]string{
		"colour in the middle":        token[:9] + "\x1b[1;31m" + token[9:],
		"colours everywhere":          strings.Join(strings.Split(token, ""), "\x1b[38;5;208m"),
		"title in the middle":         token[:20] + "\x1b]0;title\x07" + token[20:],
		"link in the middle":          token[:20] + "\x1b]8;;http://x\x1b\\" + token[20:],
		"in the prefix":               token[:2] + "\x1b[K" + token[2:],
		"charset":                     token[:30] + "\x1b(B" + token[30:],
		"two of them, next to it":     "\x1b[0m\x1b[32m" + token[:5] + "\x1b[0m\x1b[33m" + token[5:],
		"far from the stream's begin": strings.Repeat("x\n", 4000) + token[:9] + "\x1b[m" + token[9:],
	} {
		list := s.Scan([]byte(text), "")
		if !has(list, "github-pat") || list[0].Encoding != "ansi" {
			t.Errorf("%s: %v", name, list)
			continue
		}
		f := list[0]
		if got := text[f.Start:f.End]; !strings.HasPrefix(got, token[:1]) || !strings.HasSuffix(got, token[39:]) {
			t.Errorf("%s: the finding is %q", name, got)
		}
	}
	coloured := base64.StdEncoding.EncodeToString([]byte("a " + token))
	if list := s.Scan([]byte(coloured[:22]+"\x1b[33m"+coloured[22:]), ""); !has(list, "github-pat") || list[0].Encoding != "ansi+base64" {
		t.Errorf("base64 with a colour in it: %v", list)
	}
}

// TestLookAlikes: what is everywhere and no credential.
func TestLookAlikes(t *testing.T) {
	s := newSet(t, Options{})
	for i, p := range []string{
		"commit {[0-9a-f]:40}\nAuthor: somebody\n",
		"index {[0-9a-f]:7}..{[0-9a-f]:7} 100644",
		`"integrity": "sha512-{b64<}{bytes:64}{>}"`,
		`"resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz#{[0-9a-f]:40}"`,
		"github.com/a/b v1.2.3 h1:{b64<}{bytes:32}{>}",
		"{[0-9a-f]:64}  file.tar.gz",
		"sha256:{[0-9a-f]:64}",
		"id: {[0-9a-f]:8}-{[0-9a-f]:4}-4{[0-9a-f]:3}-a{[0-9a-f]:3}-{[0-9a-f]:12}",
		"uses: actions/checkout@{[0-9a-f]:40} # v4",
		"data:image/png;base64,{b64<}{bytes:900}{>}",
		"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{[0-9A-Za-z+/]:43} a@b",
		"-----BEGIN CERTIFICATE-----\n{b64<}{bytes:600}{>}\n-----END CERTIFICATE-----",
		"export GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"token: glpat-your_access_token_1",
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE",
		"sk-ant-api03-...",
		"OPENAI_API_KEY=sk-proj-xxxxxxxx",
		"xoxb-123456789012-1234567890123-xxxxxxxxxxxxxxxxxxxxxxxx",
		"postgres://user:password@localhost:5432/db",
		"https://user:pass@example.com/",
		"Authorization: Bearer $TOKEN",
		"Authorization: Basic <credentials>",
		"var a=function(){return b.sk_live_mode?c:d},e=f.pat_length||g",
		"hf_model_for_sequence_classification_tiny",
		"fw_update_firmware_from_flash_image",
		"key-value-store-of-the-new-generation",
		"the ack_timeout and ack_required fields",
	} {
		for seed := range uint64(20) {
			text, err := expand(p, seed+uint64(i)*100)
			if err != nil {
				t.Fatal(err)
			}
			if list := s.Scan([]byte(text+"\n"), ""); len(list) != 0 {
				t.Errorf("found in %q: %v", text, list)
			}
		}
	}
	for _, known := range []string{"sk_test_4eC39HqLyjWD" + "arjtT1zdp7dc", "110201543:AAHdqTcvCH1vGWJxfSeo" + "fSAs0K5PALDsaw"} {
		if list := s.Scan([]byte("a = "+known+"\n"), ""); len(list) != 0 {
			t.Errorf("a published example is found: %v", list)
		}
	}
}

func TestOneFindingForOneCredential(t *testing.T) {
	s := newSet(t, Options{})
	for text, id := range map[string]string{
		"https://x-access-token:" + Sample("github-pat", 1) + "@github.com/a": "github-pat",
		"Authorization: Bearer " + Sample("anthropic-api-key", 1):             "anthropic-api-key",
		"Authorization: Bearer " + Sample("jwt", 1):                           "jwt",
		Sample("kubernetes-service-account-jwt", 1):                           "kubernetes-service-account-jwt",
		Sample("google-service-account-key", 1):                               "google-service-account-key",
		Sample("langchain-langsmith-service-key", 1):                          "langchain-langsmith-service-key",
		Sample("sentry-org-token", 1):                                         "sentry-org-token",
		"//registry.npmjs.org/:_authToken=" + Sample("npm-access-token", 1):   "npm-access-token",
	} {
		if list := s.Scan([]byte(text+"\n"), ""); len(list) != 1 || list[0].Rule != id {
			t.Errorf("in %q: %v, want %s alone", text, list, id)
		}
	}
}

func TestFindingsSayWhatAndWhy(t *testing.T) {
	s := newSet(t, Options{})
	for id, want := range map[string]Confidence{"github-pat": Verified, "jwt": Verified, "gitlab-pat": High, "heroku-api-key": Medium, "stripe-test-key": Low, "aws-secret-access-key": Medium} {
		text := Sample(id, 0)
		list := s.Scan([]byte(text+"\n"), "")
		i := 0
		for i < len(list) && list[i].Rule != id {
			i++
		}
		if i == len(list) {
			t.Fatalf("%s not found in %q: %v", id, text, list)
		}
		f := list[i]
		if f.Confidence != want || f.Provider == "" || f.Kind == "" || f.Why == "" {
			t.Errorf("%s: %+v, want confidence %v", id, f, want)
		}
		if secret := text[f.Start:f.End]; strings.Contains(f.Why, secret) {
			t.Errorf("%s: the finding quotes the secret", id)
		}
	}
	// Little is known of this checksum, so one that does not match says little.
	text := Sample("zuplo-consumer-api-key", 1)
	list := s.Scan([]byte(text[:len(text)-1]+flipHex(text[len(text)-1])+"\n"), "")
	if len(list) != 1 || list[0].Confidence != Low || !strings.Contains(list[0].Why, "does not match") {
		t.Errorf("a wrong checksum: %v", list)
	}
}

func flipHex(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}
