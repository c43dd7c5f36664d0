-- The queries that load what the witnesses say, in DuckDB's SQL, each under its name. Bind parameters are written $name.

-- name: word
CREATE TYPE word AS ENUM (SELECT unnest($kinds::VARCHAR[]));

-- name: line_table
-- Every journal line of every file. A line that no journal has comes out with kind NULL: it is no JSON, or of a kind
-- that nobody knows, or it lacks what a line of its kind has.
CREATE TABLE line (
    file VARCHAR, n BIGINT, t DOUBLE, kind word, task VARCHAR, node VARCHAR, role VARCHAR, name VARCHAR,
    expect JSON, effects VARCHAR[], due DOUBLE,
    expires DOUBLE, follow VARCHAR[], confirmed BOOLEAN, state VARCHAR, error VARCHAR,
    outside BOOLEAN, ignored BOOLEAN, peak_kb BIGINT, pid BIGINT, child BIGINT, code BIGINT,
    queue VARCHAR, parent VARCHAR, steps JSON, members VARCHAR[], redelivered BOOLEAN,
    reason VARCHAR, traceback VARCHAR, store_s DOUBLE, returned JSON, start VARCHAR, digest VARCHAR,
    settings JSON
);

-- name: lines
INSERT INTO line BY NAME
SELECT parse_filename(filename) AS file,
       * EXCLUDE (filename, format, result_expires, timezone, enable_utc) REPLACE (
    CASE WHEN n BETWEEN 0 AND $highest AND isfinite(t)
              AND (task IS NOT NULL OR list_contains($taskless, kind))
              AND (kind <> 'opened' OR (n = 0 AND node IS NOT NULL AND coalesce(format, $format) = $format))
              AND (kind <> 'finished' OR state IS NOT NULL)
              AND (expect IS NULL OR json_type(expect) = 'OBJECT')
              AND coalesce(isfinite(due), true) AND coalesce(isfinite(expires), true)
         THEN TRY_CAST(kind AS word) END AS kind,
    -- A long expectation is kept as a digest of its text. Where that differs from the result's, it is read again.
    CASE WHEN length(expect) > $short AND json_exists(expect, '$.result')
         THEN json_object('state', expect->'$.state', 'error', expect->'$.error',
                          'start', left((expect->'$.result')::VARCHAR, $short // 2),
                          'text', left(sha256((expect->'$.result')::VARCHAR), 32))
         ELSE expect END AS expect),
    CASE WHEN kind = 'settings'
         THEN json_object('result_expires', result_expires, 'timezone', timezone, 'enable_utc', enable_utc)
         END AS settings
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true,
               filename = true, columns = {
    n: 'BIGINT', t: 'DOUBLE', kind: 'VARCHAR', task: 'VARCHAR', node: 'VARCHAR', role: 'VARCHAR', name: 'VARCHAR',
    expect: 'JSON', effects: 'VARCHAR[]', due: 'DOUBLE',
    expires: 'DOUBLE', follow: 'VARCHAR[]', confirmed: 'BOOLEAN', state: 'VARCHAR', error: 'VARCHAR',
    outside: 'BOOLEAN', ignored: 'BOOLEAN', peak_kb: 'BIGINT', pid: 'BIGINT', child: 'BIGINT', code: 'BIGINT',
    queue: 'VARCHAR', parent: 'VARCHAR', steps: 'JSON', members: 'VARCHAR[]', redelivered: 'BOOLEAN',
    reason: 'VARCHAR', traceback: 'VARCHAR', store_s: 'DOUBLE', returned: 'JSON', start: 'VARCHAR', digest: 'VARCHAR',
    format: 'BIGINT', result_expires: 'DOUBLE', timezone: 'VARCHAR', enable_utc: 'BOOLEAN'
});

-- name: forget_file
DELETE FROM line WHERE file = $file;

-- name: files
-- Per journal file: who wrote it, how many of its numbered lines are not there, how many lines are none of a journal,
-- and whether the numbers are not 0, 1, 2 and so on: one that comes twice could stand in for one that is missing. Whether
-- a line may be of beat: a worker and beat both say their settings. How many tasks began there, the most memory that its
-- process had, in kB, and when the last line was written.
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
-- What there is to be said of each file.
SELECT file, node, lines, missing, damaged, doubled, may_have_beat FROM file ORDER BY file;

-- name: owners
-- The files of which it is known whose they are.
CREATE VIEW owner AS SELECT file, node, pid, role, starts, peak_kb FROM file WHERE node IS NOT NULL;

-- name: forget_lines
DROP TABLE line;

-- name: effects
CREATE TABLE effect AS
SELECT key, task, kind, also, parse_filename(filename) AS file
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true, filename = true, columns = {
    kind: 'VARCHAR', key: 'VARCHAR', task: 'VARCHAR', also: 'VARCHAR[]'
});

-- name: other_names
-- Other names that effects have, such as a mail by its recipient.
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
-- `codec` says how a result is written: json, none, other (pickle, msgpack: never decoded), or large: not read.
-- A short result is there as a value, of a longer one a digest of its text; once it is asked for, a digest of its value
-- and its start.
CREATE TABLE result (
    task VARCHAR, status VARCHAR, codec VARCHAR, value VARCHAR, start VARCHAR, text VARCHAR, digest VARCHAR,
    done_t DOUBLE
);

-- name: rows
-- See `RowFile.export`: what begins with an x is hexadecimal. Bytes that are no text are told apart.
INSERT INTO result
SELECT task, status,
       CASE WHEN value IS NOT NULL AND json_valid(value) THEN 'json' WHEN result IS NULL THEN 'none'
            WHEN result = '+' THEN 'large' WHEN value IS NOT NULL THEN 'unread' ELSE 'other' END AS codec,
       CASE WHEN codec = 'json' AND length(value) <= $short THEN value
            WHEN codec = 'json' AND status = 'FAILURE'
            THEN json_object('exc_type', value->'$.exc_type', 'exc_message',
                             left(coalesce(value->>'$.exc_message[0]', value->>'$.exc_message'), 200))::VARCHAR END,
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
-- Tasks whose result or expectation is long, or cannot be read by the database. Most are short.
CREATE TABLE odd AS
SELECT task FROM result WHERE value IS NULL AND status = 'SUCCESS' AND codec IN ('json', 'large', 'unread')
UNION
SELECT task FROM entry WHERE contains(expect, '"text"') OR contains(expect, '"digest"');

-- name: undecided
-- Those of them whose result has to be compared with what was expected, and whose texts do not tell.
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
-- What is expected of undecided tasks, read again.
SELECT task, (expect->'$.result')::VARCHAR
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true, columns = {
    kind: 'VARCHAR', task: 'VARCHAR', expect: 'JSON'
}) WHERE kind = 'intended' AND json_exists(expect, '$.result') AND task IN (SELECT task FROM undecided WHERE long);

-- name: put_back
UPDATE result SET codec = more.codec, value = more.value, start = more.start, digest = more.digest
FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', codec: 'VARCHAR', value: 'VARCHAR', start: 'VARCHAR', digest: 'VARCHAR'
}) AS more WHERE result.task = more.task;

-- name: expected
-- What is expected of undecided tasks, as digests of values.
CREATE TABLE expected (task VARCHAR, digest VARCHAR);

-- name: add_expected
INSERT INTO expected
SELECT task, max(digest) FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', digest: 'VARCHAR'
}) GROUP BY task;

-- name: given
-- What the workers say that they gave to a result back end that does not write it as JSON.
CREATE TABLE given AS
SELECT task, arg_max({'value': (returned->'$[0]')::VARCHAR, 'start': start, 'digest': digest}, t) AS said
FROM line WHERE kind = 'finished' AND state = 'SUCCESS' AND (returned IS NOT NULL OR digest IS NOT NULL) GROUP BY task;

-- name: use_given
UPDATE result SET codec = 'json', value = said.value, start = said.start, digest = said.digest
FROM given WHERE result.task = given.task AND result.status = 'SUCCESS' AND result.codec IN ('other', 'unread', 'large');

-- name: left
-- What may still lie in the broker: what was found there or in a worker's hands, and what was sent or begun since the
-- broker was asked, at $asked_t, and has not ended.
CREATE TABLE left_over AS
WITH sent AS (SELECT task, last_intended_t FROM entry WHERE last_intended_t >= $asked_t),
     begun AS (SELECT task, last_start_t, starts > ends AS is_open FROM run WHERE last_start_t >= $asked_t)
SELECT unnest($tasks::VARCHAR[]) AS task
UNION
SELECT sent.task FROM sent LEFT JOIN begun USING (task) WHERE coalesce(last_start_t < last_intended_t, true)
UNION
SELECT entry.task FROM begun JOIN entry USING (task) WHERE is_open;

-- name: moving
-- Tasks of which the journal told more while the witnesses were read, so that what they say was not so at one time;
-- and the effects that those tasks were to have.
CREATE TABLE moving AS
SELECT task, effects FROM read_json($file, format = 'newline_delimited', columns = {
    task: 'VARCHAR', effects: 'VARCHAR[]'
});

-- name: settings
-- What the workers' settings say of their rows; and each time that one cleaned them up.
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
-- Tasks whose row was stored and is not there. It went rightly if it was cleaned up when its time was over.
CREATE TABLE gone AS
SELECT run.task, run.stored_t, any_value(owner.node) AS node,
       coalesce(bool_or(cleanup.t >= run.stored_t + cleanup.expires_s), false) AS expired,
       arg_min(cleanup, cleanup.t) FILTER (cleanup.t >= run.stored_t) AS by
FROM run LEFT JOIN owner ON owner.file = run.stored_file LEFT JOIN cleanup ON true
WHERE run.stored_t IS NOT NULL AND NOT run.ignored AND $results_readable
  AND run.task NOT IN (SELECT task FROM result) AND run.task NOT IN (SELECT task FROM moving)
GROUP BY run.task, run.stored_t;

-- name: gone_rows
-- The settings of the worker that wrote it say when the time of a row is over that nobody was seen to clean up.
SELECT gone.task, gone.stored_t, gone.node, gone.expired,
       gone.by IS NULL AND coalesce(gone.stored_t + (setting.said->>'result_expires')::DOUBLE <= span.end_t, false),
       gone.by.t, gone.by.node, gone.by.expires_s, gone.by.zone
FROM gone CROSS JOIN span LEFT JOIN setting ON setting.node = gone.node
WHERE gone.task IN (SELECT task FROM entry) ORDER BY gone.task;

-- name: want_count
SELECT count(*) FROM want;

-- name: unwatched_wants
-- Effects that are expected where nobody looked for their kind until the end.
SELECT count(*) FROM want WHERE NOT CASE WHEN starts_with(key, 'mail:') THEN $mails ELSE $others END;

-- name: grouped
-- The members of saved groups.
CREATE TABLE grouped (taskset VARCHAR, task VARCHAR);

-- name: add_grouped
INSERT INTO grouped
SELECT taskset, task FROM read_json($file, format = 'newline_delimited', columns = {taskset: 'VARCHAR', task: 'VARCHAR'});
