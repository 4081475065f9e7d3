package scan

import (
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// The parts of SARIF 2.1.0 (OASIS, sarif-schema-2.1.0.json) that guard writes.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string            `json:"id"`
		Short      sarifText         `json:"shortDescription"`
		Properties map[string]string `json:"properties,omitempty"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful bool          `json:"executionSuccessful"`
		Notes      []sarifNotice `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotice struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		Line   int `json:"startLine"`
		Column int `json:"startColumn"`
	}
)

// SARIF collects findings for a report.
type SARIF struct {
	run   sarifRun
	rules map[string]int
}

// NewSARIF begins a report of guard's version.
func NewSARIF(version string) *SARIF {
	return &SARIF{
		run: sarifRun{
			Tool: sarifTool{sarifDriver{Name: "guard", Version: version, Rules: []sarifRule{}}}, Results: []sarifResult{},
		},
		rules: map[string]int{},
	}
}

// Add adds a finding.
func (s *SARIF) Add(f *Finding) {
	id, text := f.Rule, strings.TrimSpace(f.Provider+" "+f.Kind)
	if f.Credential != "" {
		id, text = "known-value", "a value that the vault holds"
	}
	i, there := s.rules[id]
	if !there {
		i = len(s.run.Tool.Driver.Rules)
		s.rules[id] = i
		if text == "" {
			text = id
		}
		s.run.Tool.Driver.Rules = append(s.run.Tool.Driver.Rules, sarifRule{ID: id, Short: sarifText{text}})
	}
	r := sarifResult{
		RuleID: id, RuleIndex: i, Level: "warning", Message: sarifText{f.Why},
		Fingerprints: map[string]string{"guard/v1": f.Fingerprint},
		Properties:   map[string]any{"confidence": f.Confidence, "encoding": f.Encoding},
	}
	switch f.Confidence {
	case "known", "verified", "high":
		r.Level = "error"
	case "low":
		r.Level = "note"
	}
	for name, v := range map[string]string{"credential": f.Credential, "context": f.Context, "class": f.Class, "provider": f.Provider, "kind": f.Kind, "in": f.In,
		"commit": f.Commit, "author": f.Author, "date": f.Date, "blob": f.Blob, "reach": f.Reach} {
		if v != "" {
			r.Properties[name] = v
		}
	}
	loc := sarifLocation{sarifPhysical{Artifact: sarifArtifact{fileURI(f.File)}}}
	if f.Line > 0 {
		loc.Physical.Region = &sarifRegion{f.Line, f.Column}
	}
	r.Locations = []sarifLocation{loc}
	s.run.Results = append(s.run.Results, r)
}

// Write ends the report. problems are what was not searched; ok says that nothing
// else went wrong.
func (s *SARIF) Write(w io.Writer, problems []Problem, ok bool) error {
	inv := sarifInvocation{Successful: ok}
	for _, p := range problems {
		inv.Notes = append(inv.Notes, sarifNotice{"warning", sarifText{"not, or not wholly, searched: " + p.Name + ": " + p.Reason}})
	}
	s.run.Invocations = []sarifInvocation{inv}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{s.run},
	})
}

// fileURI is a path as a reference of RFC 3986: a relative one stays relative.
func fileURI(path string) string {
	p := filepath.ToSlash(path)
	u := url.URL{Path: p}
	if strings.HasPrefix(p, "/") {
		u.Scheme = "file"
	} else if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ":") {
		u.Path = "./" + p // else what is before the colon would be a scheme
	}
	return u.String()
}
