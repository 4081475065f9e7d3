package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guard"
)

// foundLines is how many values are told one by one.
const foundLines = 8

// noteFound records what was found, and tells the user, at most once of the same
// values in the same folder where there is a vault.
func (s *session) noteFound() error {
	if len(s.found) == 0 || s.noted {
		return nil
	}
	s.noted = true // a weaker boundary begins again
	var names []string
	for _, f := range s.found {
		names = append(names, f.name)
		if f.model && s.flags.allows(f.name) {
			r := s.record("credential.found")
			r.Credential, r.Version, r.Host, r.Rule, r.Decision = f.name, 1, strings.Join(f.hosts, ","), "given in the environment", guard.Pass.String()
			r.Reason = "guard run was given " + strings.Join(f.vars, ", ") + " for a model's API: the session may use it there"
			if _, err := s.append(r); err != nil {
				return err
			}
		}
	}
	r := s.record("credential.found")
	r.Reason = fmt.Sprintf("%s found and hidden: %s", counted(len(names), "value"), strings.Join(names, ", "))
	if _, err := s.append(r); err != nil {
		return err
	}
	fresh, err := s.foundIsNews()
	if err != nil {
		return err
	}
	if fresh || s.flags.verbose {
		s.sayFound()
	}
	return nil
}

// shownHere is shownPath, from the working folder where it is in it.
func (s *session) shownHere(path string) string {
	if rel, err := filepath.Rel(s.dir, path); err == nil && within(path, s.dir) {
		return oneWord(rel)
	}
	return s.app.shownPath(path)
}

func (s *session) sayFound() {
	s.app.say("hidden from the agent, which sees placeholders (nothing of it is stored):")
	var importable []string
	allow := ""
	for i, f := range s.found {
		if f.path != "" && len(importable) < 2 && !slices.Contains(importable, s.shownHere(f.path)) {
			importable = append(importable, s.shownHere(f.path))
		}
		usable := s.flags.allows(f.name)
		if allow == "" && len(f.vars) > 0 && len(f.hosts) > 0 && !usable {
			allow = f.vars[0]
		}
		if i >= foundLines && !s.flags.verbose {
			continue
		}
		var where []string
		if len(f.vars) > 0 {
			where = append(where, strings.Join(f.vars, ", ")+" (environment)")
		}
		if n := len(f.files); n > 0 {
			text := f.files[0]
			if len(f.vars) == 0 && f.label != "" && shellName.FindString(f.label) == f.label {
				text += " (" + f.label + ")"
			}
			if n > 1 {
				text += fmt.Sprintf(" and %s", counted(n-1, "other place"))
			}
			where = append(where, text)
		}
		state := ""
		if usable {
			state = ": works at " + strings.Join(f.hosts, ", ")
		}
		s.app.say("  %s%s", visible(strings.Join(where, ", ")), state)
	}
	if n := len(s.found) - foundLines; n > 0 && !s.flags.verbose {
		s.app.say("  and %d more (-v lists them)", n)
	}
	var how []string
	if len(importable) > 0 {
		how = append(how, "guard import "+strings.Join(importable, " ")+" stores it, and --allow NAME lets agents use it")
	}
	if allow != "" {
		how = append(how, "--allow env:"+allow+" does for this session")
	}
	how = append(how, "--show NAME or PATH leaves it as it is")
	s.app.say("%s", strings.Join(how, "; "))
}

// foundTold remembers, by folder, which values the user was told of: their keyed
// fingerprint.
func (s *session) foundTold() string { return filepath.Join(s.app.home(), "found.told") }

const foundFolders = 256

// foundIsNews says whether the user is to be told. Before there is a vault with
// something in it, always.
func (s *session) foundIsNews() (bool, error) {
	stored := slices.ContainsFunc(s.creds, func(c guard.Credential) bool { return !s.vault.Lent(c.Context, c.Name) })
	if !s.vault.Stored() || !stored {
		return true, nil
	}
	var set []string
	for _, f := range s.found {
		set = append(set, f.name+" "+s.app.fingerprintOf(s.vault, guard.SecretID{Context: s.info.Context, Name: f.name, Version: 1}))
	}
	print, err := s.app.fingerprint(s.vault, guard.NewSecret([]byte(strings.Join(set, "\n"))))
	if err != nil {
		return false, err
	}
	told := map[string]string{}
	b, err := os.ReadFile(s.foundTold())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if json.Unmarshal(b, &told) != nil || len(told) > foundFolders {
		told = map[string]string{}
	}
	key := s.info.Context + " " + s.dir
	if told[key] == print {
		return false, nil
	}
	told[key] = print
	if b, err = json.Marshal(told); err != nil {
		return false, err
	}
	return true, writeFile(s.foundTold(), b)
}
