package mongo

import (
	"slices"
	"strings"
)

// class says what a command does.
type class uint8

const (
	unknown class = iota
	free          // of the connection alone; needs no login
	read
	write
	mint
	never
	sasl
)

// commands are those of MongoDB 4.0 to 8.0 (its manual's list). Their names tell
// case apart.
var commands = func() map[string]class {
	m := map[string]class{}
	for c, names := range map[class]string{
		free: `hello isMaster ismaster ping buildInfo buildinfo whatsmyuri connectionStatus features listCommands startSession endSessions refreshSessions logout`,
		read: `find getMore killCursors count distinct aggregate mapReduce mapreduce geoSearch explain listCollections listDatabases listIndexes listSearchIndexes
			dbStats dbstats collStats collstats dataSize dbHash hostInfo serverStatus top replSetGetStatus replSetGetConfig usersInfo rolesInfo
			commitTransaction abortTransaction planCacheListFilters connPoolStats lockInfo isdbgrid balancerStatus analyzeShardKey`,
		write: `insert update delete findAndModify findandmodify bulkWrite create drop dropDatabase createIndexes dropIndexes deleteIndexes reIndex renameCollection
			collMod convertToCapped createSearchIndexes updateSearchIndex dropSearchIndex compact validate fsync fsyncUnlock profile currentOp killOp
			killSessions killAllSessions killAllSessionsByPattern planCacheClear planCacheClearFilters planCacheSetFilter cloneCollectionAsCapped
			enableSharding shardCollection invalidateUserCache setIndexCommitQuorum autoCompact`,
		mint: `createUser updateUser createRole updateRole grantRolesToUser grantRolesToRole grantPrivilegesToRole revokeRolesFromUser revokeRolesFromRole revokePrivilegesFromRole`,
		never: `eval $eval applyOps copydb copydbgetnonce copydbsaslstart clone cloneCollection replSetInitiate replSetReconfig replSetStepDown replSetFreeze replSetMaintenance
			replSetSyncFrom replSetResizeOplog setParameter getParameter getCmdLineOpts getLog logRotate shutdown setFeatureCompatibilityVersion addShard removeShard movePrimary moveChunk
			authSchemaUpgrade getShardMap rotateCertificates setAuditConfig setDefaultRWConcern dropUser dropAllUsersFromDatabase dropRole dropAllRolesFromDatabase compactStructuredEncryptionData`,
		sasl: `saslStart saslContinue authenticate getnonce`,
	} {
		for _, n := range strings.Fields(names) {
			m[n] = c
		}
	}
	return m
}()

// command is one message's.
type command struct {
	name string
	db   string
	body []elem
	// seqs are the documents that came beside the body, by the names of the arrays
	// that they stand for.
	seqs map[string][][]byte
}

// sections are the arrays that may come beside the body, where drivers send them.
var sections = map[string][]string{"insert": {"documents"}, "update": {"updates"}, "delete": {"deletes"}, "bulkWrite": {"ops", "nsInfo"}}

// unclear says why body and sections are no document that has one meaning: a server
// joins them, and what is judged is the body.
func (c *command) unclear() string {
	names := map[string]bool{}
	for _, e := range c.body {
		if names[e.name] {
			return "a field of it is there twice"
		}
		names[e.name] = true
	}
	for name := range c.seqs {
		if !slices.Contains(sections[c.name], name) {
			return "a section beside it is none that this command has"
		}
		if names[name] {
			return "a section beside it is in its body, too"
		}
	}
	return ""
}

// judge says what a command does, by its name and its arguments. wide: the scope
// names no databases.
func (c *command) judge(wide bool) (class, string) {
	if why := c.unclear(); why != "" {
		return never, why
	}
	cl := commands[c.name]
	first := c.body[0]
	target := first.text()
	if strings.HasPrefix(target, "system.users") || strings.HasPrefix(target, "system.roles") || strings.HasPrefix(target, "system.keys") ||
		strings.HasPrefix(target, "admin.system.") {
		return never, "what users log in with is not the agent's"
	}
	keys := func(in elem, names ...string) (bool, error) {
		return anywhere(in, 0, func(e elem) bool {
			for _, n := range names {
				if e.name == n {
					return true
				}
			}
			return false
		})
	}
	switch c.name {
	case "aggregate":
		p, _ := get(c.body, "pipeline")
		users, err := anywhere(p, 0, func(e elem) bool {
			return strings.Contains(e.text(), "system.users") || e.name == "$currentOp" || e.name == "$listLocalSessions"
		})
		if users || err != nil {
			return never, "its pipeline reads what users log in with, or what others do"
		}
		if !wide {
			if in, err := keys(p, "db", "$out", "$merge"); in || err != nil {
				return never, "the scope names databases, and this pipeline may reach another"
			}
		}
		if in, err := keys(p, "$out", "$merge"); in || err != nil {
			return write, "its pipeline writes ($out, $merge)"
		}
	case "mapReduce", "mapreduce":
		out, ok := get(c.body, "out")
		if es, _, err := document(out.raw); ok && out.kind == 0x03 && err == nil && len(es) == 1 && es[0].name == "inline" {
			return read, ""
		}
		if !wide {
			return never, "the scope names databases, and this may write to another"
		}
		return write, "out is not {inline: 1}"
	case "explain":
		es, _, err := document(first.raw)
		if first.kind != 0x03 || err != nil || len(es) == 0 {
			return unknown, "explain is of a command"
		}
		inner := &command{name: es[0].name, db: c.db, body: es}
		if cl, why := inner.judge(wide); cl == never || cl == unknown || cl == mint {
			return cl, why
		}
	case "usersInfo":
		if s, ok := get(c.body, "showCredentials"); ok {
			if n, is := s.number(); !is || n != 0 {
				return never, "what users log in with is not the agent's"
			}
		}
	case "renameCollection", "bulkWrite", "listDatabases", "killCursors", "cloneCollectionAsCapped":
		if !wide && c.name != "killCursors" {
			return never, "the scope names databases, and this command may reach another"
		}
		if to, ok := get(c.body, "to"); ok && strings.Contains(to.text(), "system.users") {
			return never, "what users log in with is not the agent's"
		}
		for _, d := range c.seqs["nsInfo"] {
			if in, err := anywhere(elem{0x03, "", d}, 0, func(e elem) bool { return strings.Contains(e.text(), "system.") }); in || err != nil {
				return never, "what users log in with is not the agent's"
			}
		}
		if in, err := func() (bool, error) {
			ns, _ := get(c.body, "nsInfo")
			return anywhere(ns, 0, func(e elem) bool { return strings.Contains(e.text(), "system.") })
		}(); in || err != nil {
			return never, "what users log in with is not the agent's"
		}
	}
	return cl, ""
}
