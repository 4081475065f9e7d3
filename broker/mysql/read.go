package mysql

import (
	"slices"
	"strings"
	"sync"
)

// What a connection with db:read may send. The server has the last word: its
// transactions are read-only (SET SESSION TRANSACTION READ ONLY). This keeps a
// client from taking that back, and from what such a transaction does not stop:
// files, locks, procedures, functions that do something. A statement passes if it
// is known to read; what is not known does not.

// reading are the words that a statement may begin with.
var reading = []string{
	"select", "with", "values", "table", "show", "describe", "desc", "explain", "help", "use", "set", "begin", "start", "commit", "rollback",
	"savepoint", "release", "kill", "unlock",
}

// setting are the variables of its own session that a client may set.
var setting = []string{
	"autocommit", "sql_mode", "time_zone", "wait_timeout", "interactive_timeout", "net_read_timeout", "net_write_timeout", "max_execution_time",
	"max_statement_time", "sql_select_limit", "sql_quote_show_create", "group_concat_max_len", "character_set_results", "character_set_client",
	"character_set_connection", "collation_connection", "lock_wait_timeout", "innodb_lock_wait_timeout", "optimizer_switch", "sql_notes",
	"sql_safe_updates", "sql_big_selects", "sql_auto_is_null", "foreign_key_checks", "unique_checks", "tx_isolation", "transaction_isolation",
	"lc_time_names", "max_join_size", "sql_warnings", "profiling", "session_track_schema", "information_schema_stats_expiry", "div_precision_increment",
	"sort_buffer_size", "join_buffer_size", "tmp_table_size", "max_heap_table_size", "cte_max_recursion_depth", "use_secondary_engine",
}

// writes says, in words, why s is not one that only reads; "" where it is.
func writes(s []token) string {
	code := 0
	mixed := false
	for i, t := range s {
		if i == 0 {
			code = t.code
		}
		mixed = mixed || t.code != code
	}
	if code != 0 && mixed {
		return "it begins in a comment with code"
	}
	first := token{}
	for _, t := range s {
		if !t.sign("(") {
			first = t
			break
		}
	}
	if !first.is(reading...) {
		return "it is not known to only read"
	}
	switch first.text {
	case "set":
		if mixed {
			return "it sets something in a comment with code"
		}
		return sets(s)
	case "show":
		return ""
	}
	for i, t := range s {
		prev, next := at(s, i-1), at(s, i+1)
		switch {
		case t.is("into") && !next.sign("@"):
			return "it writes what it reads (INTO)"
		case t.is("for") && next.is("update", "share"), t.is("lock"), t.is("lock") && next.is("in"):
			return "it locks rows"
		case t.is("write"):
			return "it asks for a transaction that writes"
		case t.is("insert", "replace") && !next.sign("("), t.is("update", "delete", "merge", "call", "load", "handler", "outfile", "dumpfile", "returning") && !next.sign("("):
			return "it holds " + strings.ToUpper(t.text)
		case t.is("next", "previous") && next.is("value"), t.is("nextval", "setval", "lastval"):
			return "it takes a number from a sequence"
		case t.is("xa", "global", "persist", "persist_only") && i == 0:
			return "it is not known to only read"
		case next.sign("(") && prev.sign("."):
			return "guard does not know what a database's own function does"
		case next.sign("(") && (t.kind == quoted || t.kind == double) && !prev.is("with", "recursive", "as"):
			return "guard does not know the function " + strings.ToUpper(t.text)
		case next.sign("(") && t.kind == word && !known(t.text) && !prev.is("with", "recursive", "as"):
			return "guard does not know the function " + strings.ToUpper(t.text)
		}
	}
	return ""
}

// sets judges SET.
func sets(s []token) string {
	rest := s[1:]
	scope := 0
	for at(rest, scope).is("session", "local") {
		scope++
	}
	switch t := at(rest, scope); {
	case t.is("transaction"):
		for _, t := range rest[scope+1:] {
			if !t.is("isolation", "level", "repeatable", "read", "committed", "uncommitted", "serializable", "only") && !t.sign(",") {
				return "it asks for a transaction that writes"
			}
		}
		return ""
	case t.is("names", "charset"):
		return "" // which one is judged elsewhere
	case t.is("character") && at(rest, scope+1).is("set"):
		return ""
	}
	depth := 0
	fresh := true // a name comes next
	for i := 0; i < len(rest); i++ {
		t := rest[i]
		switch {
		case t.sign("("):
			depth++
		case t.sign(")"):
			depth--
		case t.sign(",") && depth == 0:
			fresh = true
			continue
		}
		if fresh {
			fresh = false
			n := i
			own := false // @x
			switch {
			case at(rest, n).sign("@") && at(rest, n+1).sign("@"):
				n += 2
				if at(rest, n).is("session", "local") && at(rest, n+1).sign(".") {
					n += 2
				}
			case at(rest, n).sign("@"):
				own = true
				n++
			case at(rest, n).is("session", "local"):
				n++
			}
			name := at(rest, n)
			eq := at(rest, n+1).sign("=") || at(rest, n+1).sign(":") && at(rest, n+2).sign("=")
			if !eq || !own && (name.kind != word || !slices.Contains(setting, name.text)) {
				return "it sets something that guard does not know as harmless: " + strings.ToUpper(name.text)
			}
			i = n
			continue
		}
		switch next := at(rest, i+1); {
		case next.sign("(") && at(rest, i-1).sign("."):
			return "guard does not know what a database's own function does"
		case next.sign("(") && (t.kind == word && !known(t.text) || t.kind == quoted || t.kind == double):
			return "guard does not know the function " + strings.ToUpper(t.text)
		case t.is("into", "for", "lock", "insert", "update", "delete", "write") && !next.sign("("):
			return "it is not known to only read"
		}
	}
	return ""
}

// known says whether a word that a parenthesis follows is a keyword, or a function
// of the server's that only computes.
func known(w string) bool {
	_, ok := slices.BinarySearch(knownWords(), w)
	return ok
}

var knownWords = sync.OnceValue(func() []string {
	w := strings.Fields(`
	all and any as between by case cross distinct div do else except exists from group having if in index inner intersect interval is join key
	left like limit match mod natural not on or order outer over partition regexp rlike right row rows select set some straight_join
	table then union unique using values when where window with xor against binary collate force ignore use offset fields lateral ordinality
	char character varchar decimal numeric float double int integer signed unsigned datetime time timestamp date year nchar national
	abs acos addate adddate addtime aes_decrypt aes_encrypt analyse any_value ascii asin atan atan2 avg benchmark bin bin_to_uuid bit_and bit_count bit_length
	bit_or bit_xor cast ceil ceiling char_length character_length charset chr coalesce coercibility collation column_check column_create column_exists
	column_get column_json column_list column_add column_delete compress concat concat_ws connection_id conv convert convert_tz cos cot count crc32 crc32c cume_dist
	curdate current_date current_role current_time current_timestamp current_user curtime database date_add date_format date_sub datediff day
	dayname dayofmonth dayofweek dayofyear decode decode_oracle default degrees dense_rank des_decrypt des_encrypt elt encode encrypt exp export_set
	extract extractvalue field find_in_set first_value floor format format_bytes format_pico_time found_rows from_base64 from_days from_unixtime
	geometrycollection get_format greatest group_concat grouping hex hour ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa instr is_ipv4
	is_ipv4_compat is_ipv4_mapped is_ipv6 is_used_lock is_free_lock is_uuid isnull json_array json_array_append json_array_insert json_array_intersect json_arrayagg
	json_compact json_contains json_contains_path json_depth json_detailed json_equals json_exists json_extract json_insert json_keys json_length
	json_loose json_merge json_merge_patch json_merge_preserve json_normalize json_object json_object_filter_keys json_object_to_array json_objectagg json_overlaps json_pretty
	json_query json_quote json_remove json_replace json_schema_valid json_schema_validation_report json_search json_set json_storage_free json_storage_size
	json_table json_type json_unquote json_valid json_value lag last_day last_insert_id last_value lcase lead least length lengthb linestring ln localtime
	localtimestamp locate log log10 log2 lower lpad ltrim make_set makedate maketime max mbrcontains mbrwithin md5 median member microsecond mid min minute month
	monthname multipoint name_const natural_sort_key now nth_value ntile nullif nvl nvl2 oct octet_length old_password ord password percent_rank percentile_cont
	percentile_disc period_add period_diff pi point polygon position pow power quarter quote radians rand random_bytes rank regexp_instr regexp_like
	regexp_replace regexp_substr repeat replace insert reverse round row_count row_number rpad rtrim schema sec_to_time second session_user sha sha1 sha2 sign
	sin sformat soundex space sqrt st_area st_asgeojson st_asbinary st_astext st_aswkb st_aswkt st_buffer st_centroid st_contains st_crosses st_difference st_dimension st_disjoint
	st_distance st_distance_sphere st_envelope st_equals st_geomfromgeojson st_geomfromtext st_geomfromwkb st_geometryfromtext st_intersection st_intersects
	st_isempty st_issimple st_isvalid st_latitude st_length st_longitude st_makeenvelope st_numpoints st_overlaps st_point st_pointfromtext st_polyfromtext st_srid st_touches
	st_transform st_union st_within st_x st_y std stddev stddev_pop stddev_samp str_to_date strcmp subdate substr substring substring_index subtime sum
	sys_guid sysdate system_user tan time_format time_to_sec timediff timestampadd timestampdiff to_base64 to_char to_days to_seconds trim trim_oracle
	truncate ucase uncompress uncompressed_length unhex unix_timestamp updatexml upper user utc_date utc_time utc_timestamp uuid uuid_short uuid_to_bin
	validate_password_strength value var_pop var_samp variance version week weekday weekofyear weight_string yearweek
	`)
	slices.Sort(w)
	return w
})
