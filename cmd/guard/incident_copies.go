package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"guard"
	"guard/internal/scan"
	"guard/matcher"
	"guard/rotate"
	"guard/vault"
)

// copiesFor bounds how long an incident looks for copies of what leaked.
const copiesFor = 5 * time.Second

// maxCopies bounds how many an incident lists.
const maxCopies = 100

// keepers are where programs keep what was typed or said: histories of shells and
// clients, and agents' transcripts, below the home folder.
var keepers = []string{
	".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".sh_history", ".ash_history", ".python_history", ".node_repl_history", ".psql_history", ".mysql_history",
	".mariadb_history", ".rediscli_history", ".sqlite_history", ".irb_history", ".lesshst", ".viminfo", ".local/state/nvim/shada", ".wget-hsts", ".gdb_history",
	".claude/history.jsonl", ".claude/projects", ".claude/todos", ".claude/shell-snapshots", ".claude/file-history", ".claude.json", ".codex/history.jsonl", ".codex/sessions", ".codex/log", ".gemini/tmp", ".aider", ".aider.chat.history.md",
	".aider.input.history", ".local/share/opencode", ".local/share/goose/sessions", ".continue/sessions", ".cursor/projects", ".config/github-copilot",
}

// copiesOf looks for a version's value where it may lie about: the folders in dirs and
// the histories of repositories there, histories of shells and clients, transcripts of
// agents, and what sessions wrote to the home folder. It answers with "file:line".
func (a *app) copiesOf(ctx context.Context, v *vault.Vault, id guard.SecretID, dirs ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, copiesFor)
	defer cancel()
	value, err := v.Get(id)
	if err != nil {
		return nil, err
	}
	defer value.Wipe()
	if err := matcher.Refuse(value); err != nil {
		return nil, fmt.Errorf("copies were not looked for: %w", err)
	}
	m, err := matcher.New([]guard.Value{{ID: id, Class: guard.Retired, Secret: value}})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	s := scan.New(scan.Options{Values: m, MaxSize: 64 << 20, MaxArchive: 256 << 20})
	var roots []string
	add := func(path string) {
		if _, err := os.Stat(path); err == nil && !slices.Contains(roots, path) {
			roots = append(roots, path)
		}
	}
	for _, d := range dirs {
		add(d)
	}
	home := a.userHome()
	for _, k := range keepers {
		add(filepath.Join(home, k))
	}
	add(filepath.Join(a.home(), "homes"))
	var out []string
	full := errors.New("enough")
	emit := func(f scan.Finding) error {
		where := fmt.Sprintf("%s:%d", f.File, f.Line)
		if f.Commit != "" {
			where += fmt.Sprintf(" (commit %.12s)", f.Commit)
		}
		if len(out) == maxCopies {
			return full
		}
		out = append(out, where)
		return nil
	}
	err = s.Files(ctx, roots, emit)
	for _, d := range dirs {
		if err != nil {
			break
		}
		if _, serr := os.Stat(filepath.Join(d, ".git")); serr == nil {
			err = s.History(ctx, d, emit)
		}
	}
	switch {
	case errors.Is(err, full):
		out = append(out, "and more: guard scan finds them")
	case ctx.Err() != nil:
		out = append(out, fmt.Sprintf("not everything was looked into in %v: guard scan PATH, guard scan --git PATH", copiesFor))
	case err != nil:
		return out, err
	}
	return out, nil
}

// fillIncident adds what only main knows: what the credential was used for, and copies.
func (a *app) fillIncident(ctx context.Context, v *vault.Vault, i *rotate.Incident, dirs ...string) {
	i.Uses = a.usesOf(i.Context, i.Credential)
	copies, err := a.copiesOf(ctx, v, guard.SecretID{Context: i.Context, Name: i.Credential, Version: i.Version}, dirs...)
	if err != nil {
		copies = append(copies, "not looked for everywhere: "+err.Error())
	}
	i.Copies = copies
}

// compromised opens or goes on with the incident of a version that is compromised by
// what somebody says or a scan found, replaces it, and tells.
func (r *rotation) compromised(ctx context.Context, id guard.SecretID, l guard.Leak, m rotate.Mode, escaped bool, reason string) (rotate.Report, error) {
	store, err := rotate.OpenIncidents(r.app.incidentDir())
	if err != nil {
		return rotate.Report{}, err
	}
	i, err := store.Open(id, l, escaped)
	if err != nil {
		return rotate.Report{}, err
	}
	rep, rerr := r.runner.Replace(ctx, id, m, reason, i.ID)
	i.Apply(rep, rerr)
	dir, err := os.Getwd()
	if err != nil {
		dir = r.app.userHome()
	}
	r.app.fillIncident(ctx, r.vault, &i, dir)
	err = store.Save(i)
	n, nerr := r.app.newNotifier()
	if nerr == nil {
		n.tell(i)
		n.close()
	}
	return rep, errors.Join(rerr, err, nerr)
}
