package redis

import (
	"bytes"
	"strings"
)

// class says what a command does, as far as scopes and the protocol are concerned.
type class uint8

const (
	unknown class = iota
	read          // reads data, or the server's state
	write         // changes data, or the server's state
	conn          // of the connection alone
	mint          // makes or changes a password
	never         // refused whatever the scope
	auth          // AUTH, HELLO
	reset
	multi
	exec
	discard
	pubsub  // what is answered by more, or fewer, replies than one
	another // names another database
)

// kind is one command. Where sub is set, the second argument decides; a
// subcommand that is not there is not known.
type kind struct {
	class class
	sub   map[string]class
	// look, if set, decides by all arguments.
	look func(args [][]byte) class
	// names: the reply may hold names of users.
	names bool
	// script: it runs or stores one.
	script bool
}

func words(s string) []string { return strings.Fields(s) }

func subs(of ...any) map[string]class {
	m := map[string]class{}
	for i := 0; i+1 < len(of); i += 2 {
		for _, w := range words(of[i+1].(string)) {
			m[w] = of[i].(class)
		}
	}
	return m
}

// builtin is what guard knows of Redis 7.4's and Valkey 8's commands, after the
// flags in their src/commands/*.json, stricter where a flag says less than the
// documentation (PUBLISH is no "write" there, and neither is EVAL).
var builtin = func() map[string]kind {
	m := map[string]kind{}
	for c, names := range map[class]string{
		read: `BITCOUNT BITFIELD_RO BITPOS COMMAND DBSIZE DUMP ECHO EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO GEODIST GEOHASH GEOPOS
			GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME
			HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS INFO KEYS LASTSAVE LCS LINDEX LLEN LOLWUT LPOS LRANGE MGET PEXPIRETIME PFCOUNT PTTL
			RANDOMKEY ROLE SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION
			TIME TOUCH TTL TYPE XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER
			ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION`,
		write: `APPEND BGREWRITEAOF BGSAVE BITOP BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN DECR DECRBY DEL EVAL EVALSHA EXPIRE
			EXPIREAT FCALL FLUSHDB GEOADD GEOSEARCHSTORE GETDEL GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY HINCRBYFLOAT HMSET
			HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LMPOP LPOP LPUSH LPUSHX LREM LSET LTRIM MSET
			MSETNX PERSIST PEXPIRE PEXPIREAT PFADD PFMERGE PSETEX PUBLISH RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE
			SDIFFSTORE SET SETBIT SETEX SETNX SETRANGE SHUTDOWN SINTERSTORE SMOVE SPOP SPUBLISH SREM SUNIONSTORE UNLINK XACK XACKDEL XADD XAUTOCLAIM
			XCLAIM XDEL XDELEX XREADGROUP XSETID XTRIM ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM
			ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE DELIFEQ`,
		conn: `ASKING PING QUIT READONLY READWRITE UNWATCH WAIT WAITAOF WATCH`,
		never: `MONITOR SYNC PSYNC REPLCONF REPLICAOF SLAVEOF FAILOVER MIGRATE RESTORE-ASKING PFDEBUG PFSELFTEST POST HOST:
			SENTINEL TRIMSLOTS`,
		auth:    `AUTH HELLO`,
		reset:   `RESET`,
		multi:   `MULTI`,
		exec:    `EXEC`,
		discard: `DISCARD`,
		pubsub:  `SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE`,
		another: `SELECT MOVE COPY SWAPDB FLUSHALL`,
	} {
		for _, w := range words(names) {
			m[w] = kind{class: c, script: strings.HasPrefix(w, "EVAL") || strings.HasPrefix(w, "FCALL")}
		}
	}
	for name, s := range map[string]map[string]class{
		"CLIENT": subs(conn, "CACHING GETNAME GETREDIR HELP ID INFO LIST NO-TOUCH SETINFO SETNAME TRACKING TRACKINGINFO CAPA MAINT_NOTIFICATIONS",
			write, "KILL PAUSE UNPAUSE UNBLOCK NO-EVICT"),
		"CLUSTER":  subs(read, "COUNTKEYSINSLOT COUNT-FAILURE-REPORTS GETKEYSINSLOT HELP INFO KEYSLOT LINKS MYID MYSHARDID NODES REPLICAS SHARDS SLAVES SLOTS SLOT-STATS"),
		"CONFIG":   subs(read, "HELP", write, "RESETSTAT", never, "REWRITE"),
		"DEBUG":    subs(read, "OBJECT"),
		"FUNCTION": subs(read, "DUMP HELP LIST STATS", write, "DELETE FLUSH KILL LOAD", never, "RESTORE"),
		"LATENCY":  subs(read, "DOCTOR GRAPH HELP HISTOGRAM HISTORY LATEST", write, "RESET"),
		"MEMORY":   subs(read, "DOCTOR HELP MALLOC-STATS STATS USAGE", write, "PURGE"),
		"MODULE":   subs(read, "HELP LIST"),
		"OBJECT":   subs(read, "ENCODING FREQ HELP IDLETIME REFCOUNT"),
		"PUBSUB":   subs(read, "CHANNELS HELP NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB"),
		"SCRIPT":   subs(read, "EXISTS HELP LOAD SHOW", write, "FLUSH KILL DEBUG"),
		"SLOWLOG":  subs(read, "GET HELP LEN", write, "RESET"),
		"XGROUP":   subs(read, "HELP", write, "CREATE CREATECONSUMER DELCONSUMER DESTROY SETID"),
		"XINFO":    subs(read, "CONSUMERS GROUPS HELP STREAM"),
		"ACL":      subs(read, "CAT DRYRUN GETUSER HELP LIST LOG USERS WHOAMI", mint, "DELUSER GENPASS SETUSER", never, "LOAD SAVE"),
	} {
		m[name] = kind{sub: s, names: name == "ACL" || name == "CLIENT" || name == "SLOWLOG" || name == "CONFIG", script: name == "SCRIPT" || name == "FUNCTION"}
	}
	m["SORT"] = kind{look: without("STORE")}
	m["GEORADIUS"] = kind{look: without("STORE", "STOREDIST")}
	m["GEORADIUSBYMEMBER"] = m["GEORADIUS"]
	m["BITFIELD"] = kind{look: without("SET", "INCRBY")}
	m["GETEX"] = kind{look: func(args [][]byte) class {
		if len(args) == 2 {
			return read
		}
		return write
	}}
	acl := m["ACL"]
	acl.look = func(args [][]byte) class {
		switch {
		case len(args) < 2:
			return read // an error, by the server
		case len(args[1]) > maxName:
			return unknown
		case is(args[1], "LOG") && len(args) > 2 && is(args[2], "RESET"):
			return write
		}
		return acl.sub[upper(args[1])]
	}
	m["ACL"] = acl
	config := m["CONFIG"]
	config.look = func(args [][]byte) class {
		switch {
		case len(args) < 2:
			return read // an error, by the server
		case is(args[1], "GET"):
			return read
		case !is(args[1], "SET"):
			return config.sub[upper(args[1])]
		}
		c := write
		for i := 2; i < len(args); i += 2 {
			switch p := strings.ToLower(string(args[i])); {
			case p == "dir" || p == "dbfilename" || p == "replicaof" || p == "slaveof" || strings.HasPrefix(p, "tls-") || p == "proto-max-bulk-len":
				return never
			case p == "requirepass" || p == "masterauth" || p == "masteruser" || p == "primaryauth" || p == "primaryuser" || strings.HasPrefix(p, "sentinel"):
				c = mint
			}
		}
		return c
	}
	m["CONFIG"] = config
	client := m["CLIENT"]
	client.look = func(args [][]byte) class {
		if len(args) >= 2 && is(args[1], "REPLY") {
			if len(args) == 3 && is(args[2], "ON") {
				return conn
			}
			return never // what is answered could not be told from what is not
		}
		if len(args) < 2 {
			return read
		}
		return client.sub[upper(args[1])]
	}
	m["CLIENT"] = client
	return m
}()

// without says that a command reads unless one of its options is among words.
func without(words ...string) func([][]byte) class {
	return func(args [][]byte) class {
		for _, a := range args[1:] {
			for _, w := range words {
				if is(a, w) {
					return write
				}
			}
		}
		return read
	}
}

func is(b []byte, word string) bool { return len(b) == len(word) && bytes.EqualFold(b, []byte(word)) }

func upper(b []byte) string { return strings.ToUpper(string(b)) }

// maxName is longer than any command's name.
const maxName = 48

// find looks a command up: what guard knows, made stricter by what the server
// says of itself. The name comes in any case.
func (t *table) find(name []byte) (k kind, ok bool) {
	var b [maxName]byte
	if len(name) > len(b) || len(name) == 0 {
		return kind{}, false
	}
	n := b[:copy(b[:], name)]
	for i, c := range n {
		if c >= 'a' && c <= 'z' {
			n[i] = c - 'a' + 'A'
		}
	}
	k, ok = builtin[string(n)]
	if t == nil {
		return k, ok
	}
	own, theirs := t.says[string(n)]
	switch {
	case !ok && own == conn: // it says neither
		return kind{class: write}, true
	case !ok && theirs:
		return kind{class: own}, own != unknown
	case ok && theirs && own == write && k.class == read:
		k.class = write
	}
	return k, ok
}

// all says whether every argument is needed to decide.
func (k kind) all() bool { return k.look != nil || k.class == auth || k.class == another }

// of decides on a whole command.
func (k kind) of(args [][]byte) class {
	switch {
	case k.look != nil:
		return k.look(args)
	case k.sub == nil:
		return k.class
	case len(args) < 2:
		return read // an error, by the server
	case len(args[1]) > maxName:
		return unknown
	}
	return k.sub[upper(args[1])]
}

// table is what a server says of commands that guard does not know, such as
// those of modules: read or write, conn where it says neither, or unknown for what
// administers it.
type table struct{ says map[string]class }

// parseTable reads the reply to COMMAND: name, arity, flags, ... of each.
func parseTable(v value) *table {
	t := &table{says: map[string]class{}}
	for _, c := range v.items {
		if len(c.items) < 3 || len(c.items[0].text) > maxName {
			continue
		}
		flags := map[string]bool{}
		for _, f := range c.items[2].items {
			flags[string(f.text)] = true
		}
		cl := conn
		switch {
		case flags["write"] && !flags["admin"]:
			cl = write
		case flags["admin"] || flags["pubsub"] || len(c.items) > 9 && len(c.items[9].items) > 0:
			cl = unknown
		case flags["readonly"] && !flags["may_replicate"]:
			cl = read
		}
		t.says[upper(c.items[0].text)] = cl
	}
	return t
}
