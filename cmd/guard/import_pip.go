package main

import "strings"

// parsePip reads the logins in the URLs of pip.conf: index-url, extra-index-url and
// find-links, one URL a line.
func parsePip(b []byte) (out []candidate) {
	for _, c := range parseGitCredentials(b) {
		if c.user == "" { // a name alone is none
			continue
		}
		c.label = "pip-" + strings.TrimPrefix(c.label, "git-")
		out = append(out, c)
	}
	return out
}
