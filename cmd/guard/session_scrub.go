package main

import (
	"slices"
	"strconv"
	"strings"

	"guard"
	"guard/matcher"
	"guard/vault"
)

// scrub rewrites a reply: the values that were sent become their placeholders
// again. What it finds is no leak, since it goes to the agent.
func (s *session) scrub(ids []guard.SecretID) guard.Filter {
	set, err := s.scrubSet(ids)
	if err != nil {
		return func([]byte, guard.Step) ([]byte, guard.Decision) {
			return nil, guard.Decision{Action: guard.Block, Rule: "scrub", Reason: "the reply could not be looked through for the credential"}
		}
	}
	return (&scrubber{st: set.matcher.Stream(), placeholders: set.placeholders}).filter
}

// scrubSet is what replies are scrubbed with that may hold the values of ids. Nothing
// of it is changed.
type scrubSet struct {
	ids          []guard.SecretID
	creds        []guard.Credential // that placeholders are of
	matcher      *matcher.Matcher
	placeholders map[string][]string // by name: of the value, and of its part
}

// maxScrubSets is how many sets are at hand, the latest ones: a host has one or two.
const maxScrubSets = 8

// scrubSet finds or makes the set of ids and of the credentials as they are now.
func (s *session) scrubSet(ids []guard.SecretID) (*scrubSet, error) {
	creds := s.credentials() // another slice when something has changed
	var sets []*scrubSet
	if p := s.scrubSets.Load(); p != nil {
		sets = *p
	}
	for _, set := range sets {
		if len(set.creds) == len(creds) && (len(creds) == 0 || &set.creds[0] == &creds[0]) && slices.Equal(set.ids, ids) {
			return set, nil
		}
	}
	m, err := s.scrubMatcher(ids)
	if err != nil {
		return nil, err
	}
	set := &scrubSet{ids: slices.Clone(ids), creds: creds, matcher: m, placeholders: map[string][]string{}}
	for _, c := range creds {
		set.placeholders[c.Name] = []string{c.Placeholder}
		if part, _, ok := vault.Part(c.Placeholder); ok {
			set.placeholders[c.Name] = append(set.placeholders[c.Name], part)
		}
	}
	sets = append([]*scrubSet{set}, sets[:min(len(sets), maxScrubSets-1)]...)
	s.scrubSets.Store(&sets) // one that somebody else made meanwhile is made again
	return set, nil
}

// scrubMatcher knows the values of ids. There is one for each set of them, since
// making one takes longer than most replies.
func (s *session) scrubMatcher(ids []guard.SecretID) (*matcher.Matcher, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	slices.Sort(names)
	var lent []guard.Value
	for _, id := range ids {
		lent = append(lent, s.cloud.of(id.Name)...)
	}
	defer func() {
		for _, v := range lent {
			v.Secret.Wipe()
		}
	}()
	key := strings.Join(append(names, strconv.Itoa(len(lent))), "\n") // what is lent is only added to
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.scrubbers[key]; m != nil {
		return m, nil
	}
	var values []guard.Value
	for _, id := range ids {
		v, err := s.vault.Get(id)
		if err != nil {
			return nil, err
		}
		defer v.Wipe()
		if matcher.Refuse(v) != nil {
			continue // said when the session began: it cannot be told from other text
		}
		values = append(values, guard.Value{ID: id, Class: guard.Live, Secret: v})
		for _, p := range vault.Parts(v) {
			defer p.Wipe()
			if matcher.Refuse(p) == nil {
				values = append(values, guard.Value{ID: id, Class: guard.Live, Secret: p})
			}
		}
	}
	for _, v := range lent {
		if matcher.Refuse(v.Secret) == nil {
			values = append(values, v)
		}
	}
	m, err := matcher.New(values)
	if err != nil {
		return nil, err
	}
	s.scrubbers[key] = m
	return m, nil
}

// scrubber is the Filter of one reply.
type scrubber struct {
	st           *matcher.Stream
	placeholders map[string][]string
	held         []byte
	released     int64
	spent        int
}

func (c *scrubber) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	c.held = c.held[:copy(c.held, c.held[c.spent:])]
	c.held = append(c.held, p...)
	hits, safe := c.st.Write(p)
	if step == guard.End {
		hits = append(hits, c.st.Close()...)
	}
	switch step {
	case guard.End:
		safe = c.released + int64(len(c.held))
	case guard.Pause:
		safe = c.st.Pause()
	}
	for _, h := range hits {
		from := max(h.Start, c.released)
		if from >= h.End {
			continue // reported late, when it was released
		}
		part := c.held[from-c.released : h.End-c.released]
		if i := slices.IndexFunc(c.placeholders[h.ID.Name], func(ph string) bool { return len(ph) == int(h.End-h.Start) }); i >= 0 && h.Encoding == "raw" {
			copy(part, c.placeholders[h.ID.Name][i][from-h.Start:])
			continue
		}
		matcher.Mask(part[:0], part, []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, Start: from, End: h.End}}, from)
	}
	c.spent = int(max(0, safe-c.released))
	c.released += int64(c.spent)
	return c.held[:c.spent], guard.Decision{Action: guard.Pass}
}
