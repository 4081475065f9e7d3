package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sshHosts are the hosts, with their ports, for which ~/.ssh/config names the key
// at path, and the user it names for the first.
func sshHosts(home, path string) (hosts []string, user string) {
	b, err := os.ReadFile(filepath.Join(home, ".ssh", "config"))
	if err != nil || len(b) > importMax {
		return nil, ""
	}
	var names []string
	var hostName, port, login string
	uses := false
	flush := func() {
		if uses {
			for _, n := range names {
				if strings.ContainsAny(n, "*?!") {
					continue
				}
				if hostName != "" {
					n = strings.ReplaceAll(hostName, "%h", n)
				}
				if h := n + ":" + port; !slices.Contains(hosts, h) {
					hosts = append(hosts, h)
				}
				if user == "" {
					user = login
				}
			}
		}
		names, hostName, port, login, uses = nil, "", "22", "", false
	}
	flush()
	for line := range strings.Lines(string(b)) {
		m := sshConfigKV.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		switch strings.ToLower(m[1]) {
		case "host":
			flush()
			names = strings.Fields(m[2])
		case "match":
			flush()
		case "hostname":
			hostName = m[2]
		case "port":
			port = m[2]
		case "user":
			login = m[2]
		case "identityfile":
			p := m[2]
			if rest, ok := strings.CutPrefix(p, "~/"); ok {
				p = filepath.Join(home, rest)
			} else if rest, ok := strings.CutPrefix(p, "%d/"); ok {
				p = filepath.Join(home, rest)
			}
			uses = uses || filepath.Clean(p) == path
		}
	}
	flush()
	return hosts, user
}
