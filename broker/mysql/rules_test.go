package mysql

import (
	"strings"
	"testing"
)

// What a session with db:read may send, and what not. Each line is one attack, or one
// thing that clients send.
func TestReadOnlyStatements(t *testing.T) {
	for sql, ok := range map[string]bool{
		"SELECT 1": true, "select * from t where a = 'it''s' and b = \"x\"": true, "(SELECT 1) UNION (SELECT 2)": true,
		"WITH c AS (SELECT 1) SELECT * FROM c": true, "WITH RECURSIVE c(n) AS (SELECT 1) SELECT * FROM c": true, "SHOW TABLES": true, "SHOW CREATE TABLE `t`": true, "DESCRIBE t": true,
		"EXPLAIN SELECT 1": true, "USE app": true, "SET NAMES utf8mb4": true, "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci": true,
		"SET AUTOCOMMIT = 0": true, "SET SESSION sql_mode='ANSI_QUOTES', @x = 1, time_zone = '+00:00'": true, "SET @@session.sql_mode = ''": true,
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ": true, "START TRANSACTION READ ONLY": true, "BEGIN": true, "COMMIT": true, "ROLLBACK TO SAVEPOINT sp": true,
		"START TRANSACTION /*!40100 WITH CONSISTENT SNAPSHOT */": true, "SELECT /*!40001 SQL_NO_CACHE */ * FROM `t`": true, "/*!40101 SET NAMES utf8 */": true, "/*!40100 SET @@SQL_MODE='' */": true,
		"SELECT COUNT(*), CONCAT(a, 'x'), REPLACE(a, 'b', 'c'), INSERT('a', 1, 1, 'b') FROM t": true, "SELECT '; DELETE FROM t' # ; DROP TABLE t": true, "SELECT 1 -- ; DROP TABLE t": true,
		"SELECT 'O\\'Brien'": true, "SELECT 1 INTO @x": true, "SELECT 1;": true, "SELECT 1; SELECT 2": true, "SELECT `update`, `into` FROM `delete`": true, "": true, "-- nothing": true,
		"SET max_statement_time=0": true, "SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT": true,

		"INSERT INTO t VALUES (1)": false, "UPDATE t SET a=1": false, "DELETE FROM t": false, "REPLACE INTO t VALUES (1)": false, "DROP TABLE t": false, "CREATE TABLE x (a int)": false,
		"SELECT 1; DELETE FROM t": false, "SELECT 1 ; ; /* */ DELETE FROM t": false, "WITH c AS (SELECT 1) DELETE FROM t": false, "EXPLAIN ANALYZE UPDATE t SET a=1": false, "ANALYZE DELETE FROM t": false,
		"/*!DELETE FROM t*/": false, "/*!99999 SELECT 1 */ DELETE FROM t": false, "/*!99999 SELECT */ /*!40000 DELETE */ 1": false, "SELECT 1 /*!; DELETE FROM t */": false, "/*M! DELETE FROM t */": false, "/*M!100100 DELETE FROM t */": false,
		"select 1 --\xa0 ' \n ; delete from t -- '": false, "set @x=1 --\xa0 ' \n , session tx_read_only=0 -- '": false, "select 1--\x80": false, "select t.abs(1)": false, "select t . `abs` (1)": false, "set @x = t.abs(1)": false,
		"SELECT 1 /*!99999 ' */; DELETE FROM t /* ' */": false, "SELECT 1 /*!99999 -- */; DELETE FROM t": false, "SELECT 1 /*!99999 /* */ ; DELETE FROM t */": false, "SELECT 1 /*!99999 # */; DELETE FROM t": false,
		"SELECT 1--1; DELETE FROM t": false, "SELECT 1 --\x01; DELETE": true, "SELECT 1#\nINTO OUTFILE '/tmp/x'": false, "SELECT 1 -- \r INTO @y\nINTO OUTFILE '/tmp/x'": false,
		"SELECT 'a\\'; DELETE FROM t -- '":      false, // under NO_BACKSLASH_ESCAPES
		"SELECT \"a\\\"; DELETE FROM t -- \"":   false, // under ANSI_QUOTES
		"SELECT * INTO OUTFILE '/tmp/x' FROM t": false, "SELECT 1.0into outfile '/tmp/x'": false, "SELECT 1e1into outfile '/tmp/x'": false, "SELECT\xa01\xa0into\xa0outfile '/tmp/x'": false,
		"SELECT * FROM t INTO DUMPFILE '/tmp/x'": false, "SELECT LOAD_FILE('/etc/passwd')": false, "SELECT `load_file`('/etc/passwd')": false, "SELECT load_file /* */ ('/etc/passwd')": false,
		"SELECT sys_exec('id')": false, "SELECT GET_LOCK('x', 1)": false, "SELECT RELEASE_LOCK('x')": false, "SELECT NEXTVAL(s)": false, "SELECT NEXT VALUE FOR s": false, "SELECT SETVAL(s, 9)": false, "SELECT SLEEP(1000)": false,
		"SELECT * FROM t FOR UPDATE": false, "SELECT * FROM t FOR SHARE": false, "SELECT * FROM t LOCK IN SHARE MODE": false, "SELECT mydb.f()": false,
		"SELECT load_file /*!99999 + */ ('/etc/passwd')": false, "SELECT sys_exec/*!50700 + */('id')": false, "/*!99999 SELECT 1; */ DELETE FROM t": false, "SELECT 1 FOR /*!99999 x */ UPDATE": false, "/*!40000 SELECT 1 */; /*!99999 SELECT */ DO 1": false,
		"DO 1": false, "CALL p()": false, "LOAD DATA INFILE '/x' INTO TABLE t": false, "HANDLER t OPEN": false, "LOCK TABLES t WRITE": false, "FLUSH TABLES": false, "XA START 'x'": false,
		"PREPARE s FROM 'DELETE FROM t'": false, "EXECUTE s": false, "EXECUTE IMMEDIATE 'DELETE FROM t'": false, "RESET QUERY CACHE": false, "INSTALL PLUGIN x SONAME 'y'": false, "SHUTDOWN": false, "BEGIN NOT ATOMIC DELETE FROM t; END": false,
		"SET SESSION TRANSACTION READ WRITE": false, "SET TRANSACTION READ WRITE": false, "START TRANSACTION READ WRITE": false, "SET transaction_read_only=0": false, "SET tx_read_only = OFF": false, "SET @@session.tx_read_only=0": false, "SET @@tx_read_only=0": false, "SET SESSION tx_read_only=0": false,
		"SET @x=1, tx_read_only=0": false, "SET @x = (1), @@local.transaction_read_only := 0": false, "SET GLOBAL read_only=0": false, "SET @@global.read_only=0": false, "SET PERSIST x=1": false, "SET `tx_read_only`=0": false, "SET /*!50000 tx_read_only=0 */": false,
		"SET STATEMENT tx_read_only=0 FOR DELETE FROM t": false, "SET STATEMENT max_statement_time=1 FOR DELETE FROM t": false, "SET sql_log_bin=0": false, "SET ROLE admin": false, "SET PASSWORD = 'x'": false, "SET @x = load_file('/etc/passwd')": false, "SET @x = f()": false,
		"SELECT 1 \x00; DELETE FROM t": false, "SELECT 1 /* ; DELETE FROM t": false,
	} {
		v := judge([]byte(sql), false, true)
		if got := v.write == "" && !v.mint; got != ok {
			t.Errorf("%q: may be sent %v (%s), want %v", sql, got, v.write, ok)
		}
	}
}

func TestStatementsAboutAccounts(t *testing.T) {
	for sql, mint := range map[string]bool{
		"CREATE USER x": true, "create user if not exists 'x'@'%' identified by 'pw'": true, "CREATE OR REPLACE USER x": true, "CREATE/**/USER/* */x": true, "/*!50000 CREATE */ /*!50000 USER */ x": true, "/*!99999 CREATE USER x */": true,
		"ALTER USER x IDENTIFIED BY 'y'": true, "ALTER USER IF EXISTS x ACCOUNT UNLOCK": true, "RENAME USER a TO b": true, "CREATE ROLE r": true, "SET PASSWORD = 'x'": true, "SET PASSWORD FOR a = PASSWORD('x')": true, "set session password='x'": true,
		"GRANT ALL ON *.* TO x IDENTIFIED BY 'y'": true, "GRANT SELECT ON a.b TO x": true, "SELECT 1; GRANT ALL ON *.* TO x": true, "BEGIN NOT ATOMIC CREATE USER x; END": true,
		"CREATE PROCEDURE p() BEGIN SELECT 1; CREATE USER x; END": true, "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO CREATE USER x": true,
		"PREPARE s FROM 'CREATE USER x'": true, "EXECUTE IMMEDIATE 'CREATE USER x'": true, "EXECUTE IMMEDIATE CONCAT('CREATE ', 'USER x')": true, "PREPARE s FROM @x": true, "PREPARE s FROM 'PREPARE u FROM ''CREATE USER x'''": true,
		"PREPARE s FROM 'SELECT 1' 'x'":    true,
		"CREATE /*!99999 foo */ USER evil": true, "CREATE /*!99999 ; */ USER evil": true, "CREATE /*!50700 foo */ USER evil": true, "CREATE /*M!100100 foo */ USER evil": true, "CREATE /*!99999 ' */ USER evil /* ' */": true,
		"/*!40000 CREATE */ /*!99999 foo */ USER evil": true, "CREATE /*!500001 foo */ USER evil": true, "GRANT /*!99999 OPTION */ ALL ON *.* TO x": true, "SET /*!99999 x=1, */ PASSWORD = 'x'": true,
		"INSERT INTO mysql.user VALUES (1)": true, "UPDATE `mysql`.`global_priv` SET Priv = '{}'": true, "UPDATE mysql . user SET authentication_string = 'x'": true, "DELETE FROM global_priv": true,
		"select 1 --\xa0 ' \n ; create user evil -- '": true, "select 1 --\xff ' \n ; create user evil -- '": true,
		"create view v as select * from mysql.global_priv": true, "CREATE OR REPLACE ALGORITHM=MERGE VIEW v AS SELECT * FROM `mysql`.`db`": true, "alter table t.x rename to mysql.global_priv2": true, "create trigger r before insert on t for each row insert into mysql.func values (1)": true,
		"set global init_connect='create user x'": true, "SET @@global.init_connect = @x": true, "insert into mysql.servers values (1)": true, "install soname 'x'": true, "INSTALL PLUGIN x SONAME 'y'": true, "call t.dyn('create user x')": true, "CALL p(1, \"grant all on *.* to x\")": true,
		"SELECT 'a\\'; CREATE USER x -- '": true, "SELECT \"a\\\"; CREATE USER x -- \"": true, "SET STATEMENT x=1 FOR CREATE USER y": true,

		"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t BEFORE INSERT ON u FOR EACH ROW BEGIN SET NEW.user = 1; SET NEW.b = 2; END */": false,
		"SELECT 'CREATE USER x'": false, "SELECT 1 # CREATE USER x": false, "SHOW CREATE USER x": false, "SHOW GRANTS": false, "CREATE TABLE user (password text)": false, "UPDATE app.user SET password = 'x'": false, "INSERT INTO user (name) VALUES ('grant')": false,
		"PREPARE s FROM 'SELECT ?'": false, "EXECUTE s": false, "DEALLOCATE PREPARE s": false, "DROP USER x": false, "REVOKE ALL ON a.b FROM c": false, "SELECT * FROM mysql.user": false, "CREATE TABLE t (role int)": false, "SELECT CURRENT_USER()": false, "": false,
		"SELECT 1 --5, '": false, "CALL p('a user', 2)": false, "create view v as select * from app.users": false, "CREATE TABLE init_x (a int)": false,
	} {
		if v := judge([]byte(sql), false, false); v.mint != mint {
			t.Errorf("%q: mints %v", sql, v.mint)
		}
		if mint && !interesting([]byte(sql)) {
			t.Errorf("%q is not looked at", sql)
		}
	}
	if !judge([]byte("UPDATE user SET x = 1"), true, false).mint {
		t.Error("in the database mysql")
	}
	for sql, want := range map[string]string{
		"CREATE USER 'bob'@'%' IDENTIFIED BY 'hunter-of-values'":                     "bob=hunter-of-values",
		"ALTER USER bob IDENTIFIED WITH mysql_native_password BY 'o\\'neil'":         "bob=o'neil",
		"SET PASSWORD FOR 'bob'@'%' = PASSWORD('abc-def')":                           "bob=abc-def",
		"GRANT ALL ON *.* TO `bob`@`%` IDENTIFIED BY \"quoted\"":                     "bob=quoted",
		"CREATE USER IF NOT EXISTS bob IDENTIFIED VIA ed25519 USING PASSWORD('abc')": "bob=abc",
		"SET PASSWORD = 'plain'":                                                             "=plain",
		"CREATE USER a IDENTIFIED BY 'one', b IDENTIFIED BY 'two'":                           "a=one b=two",
		"CREATE USER bob IDENTIFIED BY PASSWORD '*0123456789012345678901234567890123456789'": "",
	} {
		var got []string
		for _, a := range judge([]byte(sql), false, false).minted {
			got = append(got, a.user+"="+a.password)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
}

func TestCharsets(t *testing.T) {
	for sql, bad := range map[string]bool{
		"SET NAMES gbk": true, "set names 'sjis'": true, "SET CHARACTER SET big5": true, "SET CHARSET cp932": true, "SET character_set_client = gb18030": true, "SET @@session.character_set_client='gbk'": true, "SET @@character_set_client := gbk": true,
		"SET character_set_client = CONCAT('g','bk')": true, "SET character_set_client = @x": true, "SET character_set_client /*!99999 , */ = gbk": true, "SET NAMES /*!99999 utf8 */ gbk": true, "SET @saved_cs_client = 'gbk'": true, "SELECT 'gbk' INTO @saved_cs_client": true, "/*!40101 SET NAMES gbk */": true, "SET a=1, NAMES gbk": true,
		"SET STATEMENT character_set_client=gbk FOR SELECT 1": true, "SET NAMES": true,
		"SET NAMES utf8mb4": false, "SET NAMES 'latin1' COLLATE latin1_bin": false, "/*!40101 SET @saved_cs_client     = @@character_set_client */": false, "/*!40101 SET character_set_client = utf8 */": false, "/*!40101 SET character_set_client = @saved_cs_client */": false,
		"/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */": false, "/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */": false, "SELECT 'SET NAMES gbk'": false, "CREATE TABLE t (a text) CHARACTER SET gbk": false,
	} {
		if v := judge([]byte(sql), false, false); v.charset != bad {
			t.Errorf("%q: refused %v", sql, v.charset)
		}
		if bad && !interesting([]byte(sql)) {
			t.Errorf("%q is not looked at", sql)
		}
	}
}
