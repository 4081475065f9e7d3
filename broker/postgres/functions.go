package postgres

import (
	"slices"
	"strings"
	"sync"
)

// known says whether a function of this name only reads or computes. They are those
// of PostgreSQL 15 that say so themselves (STABLE or IMMUTABLE in pg_proc) without those
// for the server's own use, those that run a query that stands in a string, or that take a
// transaction's number; some of later versions and of common extensions; and volatile.
func known(name string) bool {
	_, ok := slices.BinarySearch(knownFunctions(), name)
	return ok || strings.HasPrefix(name, "pg_stat_get_") && !strings.Contains(name, "reset")
}

// volatile are functions that give another answer each time and do nothing else, one by one.
const volatile = `
	array_sample array_shuffle clock_timestamp current_query currval gen_random_bytes gen_random_uuid lastval pg_blocking_pids pg_collation_actual_version
	pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_collation_actual_version pg_database_size pg_export_snapshot pg_indexes_size
	pg_is_in_recovery pg_is_wal_replay_paused pg_jit_available pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status
	pg_notification_queue_usage pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_relation_size pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_table_size
	pg_tablespace_size pg_total_relation_size pg_xact_commit_timestamp pg_xact_status random random_normal setseed timeofday txid_status uuid_generate_v1 uuid_generate_v4
	uuidv4 uuidv7
`

const stable = `
	_pg_char_max_length _pg_datetime_precision _pg_expandarray _pg_numeric_precision _pg_numeric_scale _pg_truetypid _pg_truetypmod abbrev abs aclcontains acldefault
	aclexplode aclinsert aclremove acos acosd acosh age akeys any_value area array_agg array_append array_cat array_dims array_fill array_length array_lower array_ndims
	array_position array_positions array_prepend array_remove array_replace array_reverse array_sort array_to_json array_to_string array_to_tsvector array_upper ascii asin
	asind asinh atan atan2 atan2d atand atanh avals avg bit bit_and bit_count bit_length bit_or bit_xor bool bool_and bool_or box bpchar broadcast btrim cardinality casefold
	cash_words cbrt ceil ceiling center char char_length character_length chr cidr circle col_description concat concat_ws convert convert_from convert_to corr cos cosd cosh
	cot cotd count covar_pop covar_samp crc32 crc32c crypt cume_dist current_database current_schema current_schemas current_setting current_user date date_add date_bin
	date_part date_subtract date_trunc datemultirange daterange daterange_canonical daterange_subdiff decode degrees dense_rank dexp diagonal diameter digest div dlog1 dlog10
	dmetaphone dround dtrunc elem_contained_by_range encode enum_first enum_last enum_range erf erfc every exp extract factorial family first_value float4 float8 floor format
	format_type gamma gcd generate_series generate_subscripts get_bit get_byte get_current_ts_config getdatabaseencoding getpgusername has_any_column_privilege
	has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege has_largeobject_privilege
	has_parameter_privilege has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege height hmac host
	hostmask hstore icu_unicode_version inet_client_addr inet_client_port inet_server_addr inet_server_port initcap int2 int4 int4inc int4multirange int4range
	int4range_canonical int4range_subdiff int8 int8multirange int8range int8range_canonical int8range_subdiff interval is_normalized isclosed isempty isfinite ishorizontal
	isopen isparallel isperp isvertical json_agg json_array json_array_elements json_array_elements_text json_array_length json_arrayagg json_build_array json_build_object
	json_each json_each_text json_exists json_extract_path json_extract_path_text json_object json_object_agg json_object_keys json_objectagg json_populate_record
	json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table json_to_record json_to_recordset json_to_tsvector json_typeof json_value
	jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_contains jsonb_each jsonb_each_text jsonb_exists
	jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys jsonb_path_exists
	jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first
	jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record
	jsonb_to_recordset jsonb_to_tsvector jsonb_typeof justify_days justify_hours justify_interval lag last_value lcm lead left length levenshtein lgamma like like_escape line
	ln log log10 lower lower_inc lower_inf lpad lseg ltrim macaddr macaddr8 macaddr8_set7bit make_date make_interval make_time make_timestamp make_timestamptz makeaclitem
	masklen max md5 metaphone min min_scale mod mode money multirange mxid_age name nameconcatoid netmask network normalize notlike now npoints nth_value ntile num_nonnulls
	num_nulls numeric numeric_div_trunc numeric_exp numeric_inc numeric_ln numeric_log numeric_sqrt nummultirange numnode numrange numrange_subdiff obj_description
	octet_length oid oidvectortypes overlaps overlay parse_ident path pclose percent_rank percentile_cont percentile_disc pg_available_extension_versions
	pg_available_extensions pg_backend_pid pg_basetype pg_char_to_encoding pg_client_encoding pg_collation_for pg_collation_is_visible pg_column_compression
	pg_column_is_updatable pg_column_size pg_conf_load_time pg_config pg_conversion_is_visible pg_current_snapshot pg_current_xact_id_if_assigned pg_cursor pg_describe_object
	pg_encoding_max_length pg_encoding_to_char pg_extension_update_paths pg_filenode_relation pg_function_is_visible pg_get_acl pg_get_catalog_foreign_keys
	pg_get_constraintdef pg_get_expr pg_get_function_arg_default pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody
	pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_loaded_modules pg_get_object_address pg_get_partition_constraintdef pg_get_partkeydef pg_get_publication_tables
	pg_get_replica_identity_index pg_get_replication_slots pg_get_ruledef pg_get_sequence_data pg_get_serial_sequence pg_get_statisticsobjdef pg_get_statisticsobjdef_columns
	pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object pg_identify_object_as_address
	pg_index_column_has_property pg_index_has_property pg_indexam_has_property pg_indexam_progress_phasename pg_input_error_info pg_input_is_valid pg_is_other_temp_schema
	pg_listening_channels pg_lsn pg_mcv_list_items pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible pg_options_to_table pg_partition_root
	pg_postmaster_start_time pg_prepared_statement pg_relation_filenode pg_relation_filepath pg_relation_is_publishable pg_relation_is_updatable pg_replication_origin_oid
	pg_sequence_parameters pg_settings_get_flags pg_show_all_settings pg_size_bytes pg_size_pretty pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin
	pg_statistics_obj_is_visible pg_table_is_visible pg_tablespace_databases pg_tablespace_location pg_timezone_abbrevs pg_timezone_names pg_trigger_depth
	pg_ts_config_is_visible pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof pg_visible_in_snapshot pg_wal_lsn_diff
	pg_walfile_name pg_walfile_name_offset phraseto_tsquery pi plainto_tsquery point polygon popen position pow power querytree quote_ident quote_literal quote_nullable
	radians radius range_agg range_contains range_intersect_agg range_merge rank regclass regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
	regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace
	reverse right round row_number row_security_active row_to_json rpad rtrim satisfies_hash_partition scale session_user set_bit set_byte set_masklen setweight sha224 sha256
	sha384 sha512 shobj_description show_trgm sign similar_escape similar_to_escape similarity sin sind sinh slope soundex split_part sqrt starts_with statement_timestamp
	stddev stddev_pop stddev_samp strict_word_similarity string_agg string_to_array string_to_table strip strpos substr substring sum system_user tan tand tanh text textlen
	time timestamp timestamptz timetz timezone to_ascii to_bin to_char to_date to_hex to_json to_jsonb to_number to_oct to_regclass to_regcollation to_regnamespace to_regoper
	to_regoperator to_regproc to_regprocedure to_regrole to_regtype to_regtypemod to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale
	trunc ts_debug ts_delete ts_filter ts_headline ts_lexize ts_parse ts_rank ts_rank_cd ts_token_type tsmultirange tsquery_phrase tsrange tsrange_subdiff tstzmultirange
	tstzrange tstzrange_subdiff tsvector_to_array txid_current_if_assigned txid_current_snapshot txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin
	txid_visible_in_snapshot unaccent unicode_assigned unicode_version unistr unnest upper upper_inc upper_inf uuid_extract_timestamp uuid_extract_version uuid_nil var_pop
	var_samp varbit varchar variance version websearch_to_tsquery width width_bucket word_similarity xid xml xml_is_well_formed xml_is_well_formed_content
	xml_is_well_formed_document xmlagg xmlcomment xmlexists xmltext xmlvalidate xpath xpath_exists
`

var knownFunctions = sync.OnceValue(func() []string {
	w := strings.Fields(stable + volatile)
	slices.Sort(w)
	return slices.Compact(w)
})

// syntax are words that a parenthesis may follow, and types that have a size.
var syntax = sync.OnceValue(func() []string {
	return strings.Fields(`
	all and any array as asc asymmetric between bigint bit both bpchar by case cast char character coalesce cross cube current_time current_timestamp dec decimal default desc
	distinct double else end except exclude exists extract false filter float for force_not_null force_null force_quote from full greatest group grouping having ilike in
	inner int integer intersect interval is isnull join json_table lateral leading least left like limit localtime localtimestamp materialized natural nchar normalize not
	notnull nullif numeric offset on only operator or order ordinality outer over overlaps overlay partition passing position precision real repeatable right rollup row
	select sets similar smallint some substring symmetric table then time timestamp timestamptz timetz to trailing treat trim true union using values varbit varchar varying
	when where window with within xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
`)
})

// settings are what a session may set to anything: they change how an answer looks, how
// long it takes, or where a name is looked for.
var settings = sync.OnceValue(func() []string {
	return strings.Fields(`
	application_name array_nulls bytea_output check_function_bodies client_connection_check_interval client_min_messages constraint_exclusion cursor_tuple_fraction datestyle
	debug_pretty_print debug_print_plan default_text_search_config default_transaction_deferrable default_transaction_isolation effective_cache_size effective_io_concurrency
	escape_string_warning extra_float_digits from_collapse_limit gin_fuzzy_search_limit hash_mem_multiplier idle_in_transaction_session_timeout idle_session_timeout
	intervalstyle join_collapse_limit lc_monetary lc_numeric lc_time lock_timeout max_parallel_workers max_parallel_workers_per_gather min_parallel_index_scan_size
	min_parallel_table_scan_size plan_cache_mode quote_all_identifiers random_page_cost recursive_worktable_factor restrict_nonsystem_relation_kind row_security search_path
	seq_page_cost statement_timeout synchronize_seqscans tcp_keepalives_count tcp_keepalives_idle tcp_keepalives_interval tcp_user_timeout temp_buffers timezone
	timezone_abbreviations transaction_deferrable transaction_isolation transaction_timeout transform_null_equals work_mem xmlbinary xmloption
`)
})
