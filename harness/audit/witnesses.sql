-- The queries that load the evidence, in DuckDB's SQL. Each query has a name; bind parameters are written $name.

-- name: word
CREATE TYPE word AS ENUM (SELECT unnest($kinds::VARCHAR[]));

-- name: line_table
-- Every journal line of every file. An invalid line has kind NULL: it is not JSON, or of an unknown kind, or lacks a
-- member that its kind needs.
CREATE TABLE line (
    file VARCHAR, n BIGINT, t DOUBLE, kind word, task VARCHAR, node VARCHAR, role VARCHAR, name VARCHAR,
    expect JSON, effects VARCHAR[], due DOUBLE,
    expires DOUBLE, follow VARCHAR[], confirmed BOOLEAN, state VARCHAR, error VARCHAR,
    outside BOOLEAN, ignored BOOLEAN, peak_kb BIGINT, pid BIGINT, child BIGINT, code BIGINT,
    queue VARCHAR, parent VARCHAR, steps JSON, members VARCHAR[], redelivered BOOLEAN,
    reason VARCHAR, traceback VARCHAR, store_s DOUBLE, since_store_s DOUBLE, returned JSON, start VARCHAR, digest VARCHAR,
    settings JSON, eta DOUBLE, rolled_back BOOLEAN, rss_kb BIGINT, ran BIGINT, retries BIGINT, transient BOOLEAN,
    out_of_memory BOOLEAN
);

-- name: lines
INSERT INTO line BY NAME
SELECT parse_filename(filename) AS file,
       * EXCLUDE (filename, format, result_expires, timezone, enable_utc, concurrency, "at", "until", "next",
                  took_s, planned_s) REPLACE (
    CASE WHEN n BETWEEN 0 AND $highest AND t BETWEEN 0 AND $latest_t
              AND (task IS NOT NULL OR list_contains($taskless, kind))
              AND (kind <> 'opened' OR (n = 0 AND node IS NOT NULL AND coalesce(format, $format) = $format))
              AND (kind <> 'finished' OR state IS NOT NULL)
              AND (expect IS NULL OR json_type(expect) = 'OBJECT')
              AND coalesce(due BETWEEN $first_date AND $last_date, true)
              AND coalesce(expires BETWEEN $first_date AND $last_date, true)
              AND coalesce(eta BETWEEN $first_date AND $last_date, true)
              AND coalesce("at" BETWEEN 0 AND $latest_t, true)
              AND coalesce("until" BETWEEN 0 AND $latest_t, true) AND coalesce("next" BETWEEN 0 AND $latest_t, true)
              AND coalesce(greatest(abs(store_s), abs(since_store_s), abs(took_s), abs(planned_s)) <= $latest_t, true)
         THEN TRY_CAST(kind AS word) END AS kind,
    -- A long expectation is kept as a digest of its text. If that differs from the result's, the expectation is read
    -- again. 32 hexadecimal digits are 128 bits: two texts do not have them in common by chance. Half of the length of
    -- a short text is kept for display.
    CASE WHEN length(expect) > $short AND json_exists(expect, '$.result')
         THEN json_object('state', expect->'$.state', 'error', expect->'$.error',
                          'start', left((expect->'$.result')::VARCHAR, $short // 2),
                          'text', left(sha256((expect->'$.result')::VARCHAR), 32))
         ELSE expect END AS expect),
    CASE WHEN kind = 'settings'
         THEN json_object('result_expires', result_expires, 'timezone', timezone, 'enable_utc', enable_utc,
                          'concurrency', concurrency)
         END AS settings
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true,
               filename = true, columns = {
    n: 'BIGINT', t: 'DOUBLE', kind: 'VARCHAR', task: 'VARCHAR', node: 'VARCHAR', role: 'VARCHAR', name: 'VARCHAR',
    expect: 'JSON', effects: 'VARCHAR[]', due: 'DOUBLE',
    expires: 'DOUBLE', follow: 'VARCHAR[]', confirmed: 'BOOLEAN', state: 'VARCHAR', error: 'VARCHAR',
    outside: 'BOOLEAN', ignored: 'BOOLEAN', peak_kb: 'BIGINT', pid: 'BIGINT', child: 'BIGINT', code: 'BIGINT',
    queue: 'VARCHAR', parent: 'VARCHAR', steps: 'JSON', members: 'VARCHAR[]', redelivered: 'BOOLEAN',
    reason: 'VARCHAR', traceback: 'VARCHAR', store_s: 'DOUBLE', since_store_s: 'DOUBLE',
    returned: 'JSON', start: 'VARCHAR', digest: 'VARCHAR',
    format: 'BIGINT', result_expires: 'DOUBLE', timezone: 'VARCHAR', enable_utc: 'BOOLEAN', concurrency: 'BIGINT',
    eta: 'DOUBLE', rolled_back: 'BOOLEAN', rss_kb: 'BIGINT', ran: 'BIGINT', retries: 'BIGINT', transient: 'BOOLEAN',
    out_of_memory: 'BOOLEAN',
    "at": 'DOUBLE', "until": 'DOUBLE', "next": 'DOUBLE', took_s: 'DOUBLE', planned_s: 'DOUBLE'
});

-- name: forget_file
DELETE FROM line WHERE file = $file;

-- name: files
-- Per journal file: its writer, the number of missing line numbers, the number of invalid lines, and whether the
-- numbers differ from 0, 1, 2 and so on (one that occurs twice could replace a missing one). Whether a line may be of
-- beat: both a worker and beat write their settings. The number of executions begun, the peak memory of its process in
-- kB, and the time of the last line.
CREATE OR REPLACE TABLE file AS
SELECT file,
       any_value(node) FILTER (kind = 'opened') AS node,
       any_value(pid) FILTER (kind = 'opened') AS pid,
       any_value(role) FILTER (kind = 'opened') AS role,
       count(kind) AS lines,
       coalesce(max(n) FILTER (kind IS NOT NULL) + 1, 0) - count(kind) AS missing,
       count(*) - count(kind) AS damaged,
       missing = 0 AND (coalesce(sum(n) FILTER (kind IS NOT NULL), 0) <> lines::HUGEINT * (lines - 1) // 2
           OR coalesce(sum(n::HUGEINT * n) FILTER (kind IS NOT NULL), 0)
              <> lines::HUGEINT * (lines - 1) * (2 * lines - 1) // 6) AS doubled,
       coalesce(bool_or(kind IN ('embedded', 'schedule', 'woke', 'unsent', 'settings')), false) AS may_have_beat,
       count(*) FILTER (kind = 'started') AS starts,
       max(peak_kb) AS peak_kb,
       max(t) AS last_t
FROM line GROUP BY file;

-- name: of_files
-- The figures of each file.
SELECT file, node, lines, missing, damaged, doubled, may_have_beat FROM file ORDER BY file;

-- name: owners
-- The files whose writer is known.
CREATE VIEW owner AS SELECT file, node, pid, role, starts, peak_kb FROM file WHERE node IS NOT NULL;

-- name: forget_lines
DROP TABLE line;

-- name: row_kinds
-- The kinds of effects that queries find in the app's own database, and whether all rows were seen at the end. The key
-- of such an effect begins with its kind and a colon.
CREATE TABLE row_kind AS
SELECT kind, list_contains($seen::VARCHAR[], kind) AS seen FROM (SELECT unnest($kinds::VARCHAR[]) AS kind);

-- name: effects
CREATE TABLE effect AS
SELECT key, task, kind, also, parse_filename(filename) AS file
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true, columns = {
    kind: 'VARCHAR', key: 'VARCHAR', task: 'VARCHAR', also: 'VARCHAR[]'
});

-- name: other_names
-- Other names of effects, such as a mail by its recipient.
CREATE TABLE other_name AS
SELECT key, name FROM (SELECT key, unnest(also) AS name FROM effect WHERE key IS NOT NULL AND also IS NOT NULL)
WHERE name IS NOT NULL;

-- name: forget_effects
DROP TABLE effect;

-- name: damaged_effects
SELECT file, count(*) AS lines FROM effect WHERE key IS NULL GROUP BY file ORDER BY file;

-- name: no_effects
CREATE TABLE effect (key VARCHAR, task VARCHAR, kind VARCHAR, also VARCHAR[], file VARCHAR);

-- name: row_table
-- `codec` is the format of a result: json, none, other (pickle, msgpack: never decoded), unread (text that the database
-- cannot parse), or large (too long). A short result is stored as a value, a longer one as a digest of its text; if it
-- is compared, as a digest of its value and its start.
CREATE TABLE result (
    task VARCHAR, status VARCHAR, codec VARCHAR, value VARCHAR, start VARCHAR, text VARCHAR, digest VARCHAR,
    done_t DOUBLE
);

-- name: rows
-- See `RowFile.export`: a leading x means hexadecimal. A text that is not UTF-8 stays distinguishable. Of a long
-- failure, only the exception is kept, with 200 characters of its message: a finding shows fewer (`_LONGEST_CHARS` in
-- explain.py). A digest has 32 digits, as in the query `lines`.
INSERT INTO result
SELECT task, status,
       CASE WHEN value IS NOT NULL AND json_valid(value) THEN 'json' WHEN result IS NULL THEN 'none'
            WHEN result = '+' THEN 'large' WHEN value IS NOT NULL THEN 'unread' ELSE 'other' END AS codec,
       CASE WHEN codec = 'json' AND length(value) <= $short THEN value
            WHEN codec = 'json' AND status = 'FAILURE'
            THEN json_object('exc_type', value->'$.exc_type', 'exc_message',
                             left(CASE WHEN json_type(value, '$.exc_message') = 'ARRAY'
                                       THEN array_to_string(json_extract_string(value, '$.exc_message[*]'), ', ')
                                       ELSE value->>'$.exc_message' END, 200))::VARCHAR END,
       NULL,
       CASE WHEN codec = 'json' AND length(value) > $short THEN left(sha256(json(value)::VARCHAR), 32) END,
       NULL, epoch(TRY_CAST(TRY(decode(unhex(substr(done, 2)))) AS TIMESTAMP))
FROM (
    SELECT coalesce(TRY(decode(unhex(substr(task, 2)))), lower(task)) AS task,
           CASE WHEN starts_with(status, 'x') THEN coalesce(TRY(decode(unhex(substr(status, 2)))), '')
                ELSE coalesce(status, '') END AS status, result, done,
           TRY(decode(unhex(substr(nullif(result, '+'), 2)))) AS value
    FROM read_csv($file, auto_detect = false, header = false, delim = ',', quote = '', escape = '', nullstr = '',
                  columns = {task: 'VARCHAR', status: 'VARCHAR', result: 'VARCHAR', done: 'VARCHAR'})
) WHERE task IS NOT NULL;

-- name: long_failures
SELECT task FROM result WHERE status = 'FAILURE' AND codec IN ('large', 'unread');

-- name: odd
-- Tasks whose result or expectation the database may not hold. They are few, so that the next query has little to do.
CREATE TABLE odd AS
SELECT task FROM result WHERE value IS NULL
UNION
SELECT task FROM entry WHERE contains(expect, '"text"');

-- name: undecided
-- Those tasks of `odd` whose result must be compared with the expected one, and whose texts do not decide it.
CREATE TABLE undecided AS
SELECT task, entry.expect->>'$.text' IS NOT NULL AS long, task NOT IN (SELECT task FROM given) AS stored
FROM odd JOIN entry USING (task) JOIN result USING (task)
WHERE status = 'SUCCESS' AND codec IN ('json', 'large', 'unread')
  AND (json_exists(entry.expect, '$.result') OR entry.expect->>'$.text' IS NOT NULL
       OR entry.expect->>'$.digest' IS NOT NULL)
  AND (value IS NULL OR NOT json_exists(entry.expect, '$.result'))
  AND coalesce(text <> entry.expect->>'$.text', true);

-- name: undecided_tasks
SELECT task FROM undecided WHERE stored;

-- name: long_count
SELECT count(*) FROM undecided WHERE long;

-- name: long_expectations
-- The expectations of undecided tasks, read again.
SELECT task, (expect->'$.result')::VARCHAR
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true, columns = {
    task: 'VARCHAR', expect: 'JSON'
}) WHERE json_exists(expect, '$.result') AND task IN (SELECT task FROM undecided WHERE long);

-- name: put_back
-- A value that is short stays, to be shown.
UPDATE result SET codec = more.codec, value = coalesce(more.value, result.value), start = more.start, digest = more.digest
FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', codec: 'VARCHAR', value: 'VARCHAR', start: 'VARCHAR', digest: 'VARCHAR'
}) AS more WHERE result.task = more.task;

-- name: expected
-- The expectations of undecided tasks, as digests of values.
CREATE TABLE expected (task VARCHAR, digest VARCHAR);

-- name: add_expected
INSERT INTO expected
SELECT task, max(digest) FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', digest: 'VARCHAR'
}) GROUP BY task;

-- name: given
-- The return values that workers journaled, for a result backend that does not store JSON.
CREATE TABLE given AS
SELECT task, arg_max({'value': (returned->'$[0]')::VARCHAR, 'start': start, 'digest': digest}, t) AS said
FROM line WHERE kind = 'finished' AND state = 'SUCCESS' AND (returned IS NOT NULL OR digest IS NOT NULL) GROUP BY task;

-- name: use_given
-- Where results are pickled, None is no result at all. Such a row agrees with no other value, whatever a worker said.
UPDATE result SET codec = 'json', value = said.value, start = said.start, digest = said.digest
FROM given WHERE result.task = given.task AND result.status = 'SUCCESS'
    AND (result.codec IN ('other', 'unread', 'large') OR (result.codec = 'none' AND said.value = 'null'));

-- name: left
-- The tasks that may still be in the broker: those found there or held by a worker, and those sent or begun since the
-- broker was asked, at $asked_t, that have not ended.
CREATE TABLE left_over AS
WITH sent AS (SELECT task, last_intended_t FROM entry WHERE last_intended_t >= $asked_t),
     begun AS (SELECT task, last_start_t, starts > ends AS is_open FROM run WHERE last_start_t >= $asked_t)
SELECT unnest($tasks::VARCHAR[]) AS task
UNION
SELECT sent.task FROM sent LEFT JOIN begun USING (task) WHERE coalesce(last_start_t < last_intended_t, true)
UNION
SELECT entry.task FROM begun JOIN entry USING (task) WHERE is_open;

-- name: moving
-- Tasks that the journal named again while the witnesses were read, so that the evidence on them is not of one time;
-- and their expected effects.
CREATE TABLE moving AS
SELECT task, effects FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', effects: 'VARCHAR[]'
});

-- name: moved_since
-- Tasks whose rows were stored after the rows were copied, at $copied_t.
INSERT INTO moving SELECT task, [] FROM run WHERE stored_t >= $copied_t;

-- name: settings
-- The workers' settings for their rows. The next query lists each cleanup of the rows, with these settings.
CREATE TABLE setting AS
SELECT owner.node, arg_max(line.settings, line.t) AS said
FROM line JOIN owner USING (file) WHERE line.kind = 'settings' GROUP BY owner.node;

-- name: cleanups
CREATE TABLE cleanup AS
SELECT owner.node, line.t, (setting.said->>'result_expires')::DOUBLE AS expires_s,
       CASE WHEN (setting.said->>'enable_utc')::BOOLEAN IS false THEN NULL ELSE setting.said->>'timezone' END AS zone
FROM line JOIN owner USING (file) LEFT JOIN setting ON setting.node = owner.node
WHERE kind = 'finished' AND task IN (SELECT task FROM line WHERE kind = 'started' AND name = 'celery.backend_cleanup');

-- name: gone
-- Tasks whose row was stored and is missing. It expired rightly if a cleanup ran after its expiry.
CREATE TABLE gone AS
SELECT run.task, run.stored_t, any_value(owner.node) AS node,
       arg_min(cleanup, cleanup.t) FILTER (cleanup.t >= run.stored_t + cleanup.expires_s) AS expirer,
       expirer IS NOT NULL AS expired,
       coalesce(expirer, arg_min(cleanup, cleanup.t) FILTER (cleanup.t >= run.stored_t)) AS by
FROM run LEFT JOIN owner ON owner.file = run.stored_file LEFT JOIN cleanup ON true
WHERE run.stored_t IS NOT NULL AND NOT run.ignored AND $results_readable
  AND run.task NOT IN (SELECT task FROM result) AND run.task NOT IN (SELECT task FROM moving)
GROUP BY run.task, run.stored_t;

-- name: gone_rows
-- `overdue` (the fifth column): no cleanup was seen, and by the settings of the worker that wrote it, the row expired
-- before the run ended.
SELECT gone.task, gone.stored_t, gone.node, gone.expired,
       gone.by IS NULL AND coalesce(gone.stored_t + (setting.said->>'result_expires')::DOUBLE <= span.end_t, false),
       gone.by.t, gone.by.node, gone.by.expires_s, gone.by.zone
FROM gone CROSS JOIN span LEFT JOIN setting ON setting.node = gone.node
WHERE gone.task IN (SELECT task FROM entry) ORDER BY gone.task;

-- name: want_count
SELECT count(*) FROM want;

-- name: unwatched_wants
-- The number of effects expected of a kind that was not observed until the end.
SELECT count(*) FROM want LEFT JOIN row_kind ON split_part(key, ':', 1) = kind
WHERE NOT coalesce(seen, CASE WHEN starts_with(key, 'mail:') THEN $mails ELSE $others END);

-- name: grouped
-- The members of saved groups.
CREATE TABLE grouped (taskset VARCHAR, task VARCHAR);

-- name: add_grouped
INSERT INTO grouped
SELECT taskset, task FROM read_json($file, format = 'newline_delimited', columns = {taskset: 'VARCHAR', task: 'VARCHAR'});
