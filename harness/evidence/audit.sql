-- The audit's queries, in DuckDB's SQL, each under its name. Bind parameters are written $name.

-- name: lines
-- Every journal line of every file. A line that is no JSON comes out with kind NULL.
CREATE TABLE line AS
SELECT parse_filename(filename) AS file, * EXCLUDE (filename)
FROM read_json($files, format = 'newline_delimited', ignore_errors = true, filename = true, columns = {
    n: 'BIGINT', t: 'DOUBLE', kind: 'VARCHAR', task: 'VARCHAR', node: 'VARCHAR', name: 'VARCHAR',
    expect: 'JSON', effects: 'VARCHAR[]', due: 'DOUBLE',
    confirmed: 'BOOLEAN', state: 'VARCHAR', outside: 'BOOLEAN', ignored: 'BOOLEAN'
});

-- name: files
-- Per journal file: who wrote it, and how many of its numbered lines are not there.
SELECT file,
       max(node) FILTER (kind = 'opened') AS node,
       count(*) FILTER (kind IS NOT NULL) AS lines,
       coalesce(max(n) + 1, 0) - count(*) FILTER (kind IS NOT NULL) AS missing,
       count(*) FILTER (kind IS NULL) AS damaged
FROM line GROUP BY file ORDER BY file;

-- name: entries
-- One entry a task that somebody intended to send. A task that retries is published again under the same id:
-- `known` says whether any publish was accepted, `outcome` what became of the last one.
CREATE TABLE entry AS
SELECT task,
       min(name) FILTER (kind = 'intended') AS name,
       min(t) FILTER (kind = 'intended') AS intended_t,
       arg_min(coalesce(due, t), t) FILTER (kind = 'intended') AS due_t,
       max(expect::VARCHAR) AS expect,
       bool_or(kind = 'accepted') AS known,
       CASE WHEN coalesce(max(t) FILTER (kind = 'intended') > max(t) FILTER (kind <> 'intended'), true) THEN 'none'
            ELSE arg_max(CASE WHEN confirmed IS false THEN 'unconfirmed' ELSE kind END, t) FILTER (kind <> 'intended')
            END AS outcome
FROM line WHERE kind IN ('intended', 'accepted', 'refused', 'unknown') AND task IS NOT NULL
GROUP BY task HAVING bool_or(kind = 'intended');

-- name: runs
-- Per task, what the workers say: how often it began, came to an end by itself, asked to run again, and how it ended.
CREATE TABLE run AS
SELECT task,
       count(*) FILTER (kind = 'started') AS starts,
       count(*) FILTER (kind = 'finished' AND outside IS NOT true) AS ends,
       count(*) FILTER (kind = 'retried') AS retries,
       bool_or(kind = 'finished' AND state = 'SUCCESS') AS succeeded,
       bool_or(kind = 'finished' AND state IN ('FAILURE', 'REJECTED', 'IGNORED')) AS failed,
       bool_or(kind IN ('revoked', 'discarded')) AS revoked,
       bool_or(ignored IS true) AS ignored,
       min(t) FILTER (kind = 'finished' AND state = 'SUCCESS') AS success_t
FROM line WHERE kind IN ('started', 'finished', 'retried', 'revoked', 'discarded') AND task IS NOT NULL
GROUP BY task;

-- name: workers
-- Who did the work: tasks begun, per node.
SELECT owner.node, count(*) AS starts
FROM line JOIN (SELECT DISTINCT file, node FROM line WHERE kind = 'opened') AS owner USING (file)
WHERE line.kind = 'started' GROUP BY owner.node ORDER BY owner.node;

-- name: wants
-- The effects that each task was expected to have; a task that said nothing about effects has no row here.
CREATE TABLE want AS
SELECT DISTINCT task, unnest(effects) AS key FROM line WHERE kind = 'intended' AND len(effects) > 0;

-- name: undeclared
CREATE TABLE undeclared AS
SELECT task FROM line WHERE kind = 'intended' GROUP BY task HAVING count(effects) = 0;

-- name: forget_lines
DROP TABLE line;

-- name: effects
CREATE TABLE effect AS
SELECT key, task, kind, parse_filename(filename) AS file
FROM read_json($files, format = 'newline_delimited', ignore_errors = true, filename = true, columns = {
    kind: 'VARCHAR', key: 'VARCHAR', task: 'VARCHAR'
});

-- name: damaged_effects
SELECT file, count(*) AS lines FROM effect WHERE key IS NULL GROUP BY file ORDER BY file;

-- name: no_effects
CREATE TABLE effect (key VARCHAR, task VARCHAR, kind VARCHAR, file VARCHAR);

-- name: rows
-- `codec` says how a result is written: json, none, or other (pickle, msgpack: never decoded).
CREATE TABLE result AS
SELECT task, status, value,
       CASE WHEN encoding = 'none' THEN 'none' WHEN json_valid(value) THEN 'json' ELSE 'other' END AS codec
FROM read_csv($file, header = false, delim = ',', quote = '"', escape = '"', nullstr = '\N', columns = {
    task: 'VARCHAR', status: 'VARCHAR', encoding: 'VARCHAR', value: 'VARCHAR'
});

-- name: no_rows
CREATE TABLE result (task VARCHAR, status VARCHAR, codec VARCHAR, value VARCHAR);

-- name: left
CREATE TABLE left_over AS SELECT DISTINCT unnest($tasks::VARCHAR[]) AS task;

-- name: effects_of
-- Per task: expected effects that never came, and those that came more than once.
CREATE TABLE had AS
WITH seen AS (SELECT key, count(*) AS times FROM effect WHERE key IS NOT NULL GROUP BY key)
SELECT want.task,
       count(*) FILTER (seen.times IS NULL) AS absent,
       coalesce(max(seen.times), 1) - 1 AS extra
FROM want LEFT JOIN seen USING (key) GROUP BY want.task;

-- name: facts
-- All that is known of each entry, in one row.
CREATE TABLE fact AS
SELECT entry.* EXCLUDE (expect),
       coalesce(json_extract_string(entry.expect, '$.state'), 'SUCCESS') AS expect_state,
       json_extract(entry.expect, '$.result')::VARCHAR AS expect_result,
       json_extract_string(entry.expect, '$.error') AS expect_error,
       coalesce(run.starts, 0) AS starts,
       coalesce(run.ends, 0) AS ends,
       greatest(coalesce(run.starts - run.ends, 0), 0) AS cut_short,
       coalesce(run.retries, 0) AS retries,
       coalesce(run.ignored, false) AS ignored,
       run.success_t,
       result.status,
       result.codec,
       result.value,
       result.task IS NOT NULL AS has_row,
       coalesce(result.status IN ('SUCCESS', 'FAILURE', 'REVOKED'), false) AS recorded,
       CASE WHEN result.status IN ('SUCCESS', 'FAILURE', 'REVOKED') THEN result.status
            WHEN run.succeeded THEN 'SUCCESS'
            WHEN run.failed THEN 'FAILURE'
            WHEN run.revoked THEN 'REVOKED' END AS ending,
       coalesce(had.absent, 0) AS absent,
       coalesce(had.extra, 0) AS extra,
       left_over.task IS NOT NULL AS is_left
FROM entry
LEFT JOIN run USING (task)
LEFT JOIN result USING (task)
LEFT JOIN had USING (task)
LEFT JOIN left_over USING (task);

-- name: mismatches
-- Results whose text differs from what was expected; whether the values differ is decided outside, because
-- the order of an object's members means nothing.
SELECT task, expect_result, value FROM fact
WHERE ending = 'SUCCESS' AND expect_result IS NOT NULL AND codec = 'json' AND json(value)::VARCHAR <> expect_result
ORDER BY task;

-- name: wrong
CREATE TABLE wrong (task VARCHAR);

-- name: fates
-- Exactly one fate each: the first line that holds decides.
CREATE TABLE fate AS
SELECT fact.*,
CASE
    -- It never came to an end.
    WHEN ending IS NULL AND is_left THEN 'pending'
    WHEN ending IS NULL AND outcome = 'refused' AND starts = 0 THEN 'refused'
    WHEN ending IS NULL AND outcome <> 'accepted' AND (starts = 0 OR known) THEN 'unknown'
    WHEN ending IS NULL AND $incomplete THEN 'unknown'
    WHEN ending IS NULL THEN 'lost'
    -- It ended. A witness that should have seen it and could not be read leaves the question open.
    WHEN absent > 0 AND ending = 'SUCCESS' AND NOT $effects_readable THEN 'unknown'
    WHEN absent > 0 AND ending = 'SUCCESS' THEN 'lost'
    WHEN extra > CASE $effects WHEN 'exactly-once' THEN 0 WHEN 'once-unless-killed' THEN cut_short ELSE extra END
        THEN 'duplicated'
    WHEN $delivery = 'at-most-once' AND starts > 1 + retries THEN 'duplicated'
    WHEN NOT $results_readable AND $recorded AND NOT ignored THEN 'unknown'
    WHEN ending = 'SUCCESS' AND starts + ends = 0 THEN 'unknown'
    WHEN ending = 'SUCCESS' AND expect_state <> 'SUCCESS' THEN 'wrong'
    WHEN $recorded AND NOT recorded AND NOT ignored THEN 'unrecorded'
    WHEN expect_error IS NOT NULL AND codec = 'json' AND json_extract_string(value, '$.exc_type') <> expect_error
        THEN 'wrong'
    WHEN ending <> 'SUCCESS' THEN 'failed'
    WHEN expect_result IS NOT NULL AND codec IS NOT NULL AND codec <> 'json' THEN 'unknown'
    WHEN task IN (SELECT task FROM wrong) THEN 'wrong'
    WHEN NOT coalesce(known, false) THEN 'recovered'
    ELSE 'ok'
END AS fate
FROM fact;

-- name: entry_count
SELECT count(*) FROM entry;

-- name: counts
SELECT fate, count(*) AS count FROM fate GROUP BY fate ORDER BY fate;

-- name: of_fate
SELECT task FROM fate WHERE fate = $fate;

-- name: e2e
-- Milliseconds from due to the first success. quantile_disc returns a value that occurred, not one in between.
SELECT count(*) AS count, quantile_disc(ms, 0.5) AS p50, quantile_disc(ms, 0.95) AS p95,
       quantile_disc(ms, 0.99) AS p99, max(ms) AS max
FROM (SELECT (success_t - due_t) * 1000 AS ms FROM fact WHERE success_t IS NOT NULL);

-- The queries from here on each find ids, in a column named task; the audit counts them and shows the first.

-- name: unexpected_executions
SELECT task FROM run WHERE starts > 0 AND task NOT IN (SELECT task FROM entry);

-- name: unexpected_rows
SELECT task FROM result WHERE task NOT IN (SELECT task FROM entry);

-- name: unexpected_effects
-- An effect is expected if some task wanted its key, or if the task that had it never said which effects it would have.
SELECT DISTINCT key AS task FROM effect
WHERE key IS NOT NULL AND key NOT IN (SELECT key FROM want)
  AND coalesce(task NOT IN (SELECT task FROM undeclared), true);

-- name: failed_unexpectedly
SELECT task FROM fate WHERE fate = 'failed' AND ending <> expect_state;

-- name: refused_but_ran
SELECT task FROM fate WHERE outcome = 'refused' AND NOT coalesce(known, false) AND starts > 0;

-- name: late
SELECT task FROM fate WHERE (success_t - due_t) > $deadline_s;

-- name: undecoded
SELECT task FROM fact WHERE codec = 'other';

-- name: ran_again
-- Allowed by the promise, and still worth a remark.
SELECT task FROM fate WHERE starts > 1 + retries AND fate NOT IN ('duplicated', 'lost');

-- name: had_again
-- More effects than one, each explained by an execution that was cut short, or allowed by the promise.
SELECT task FROM fate WHERE extra > 0 AND fate <> 'duplicated';

-- name: unfinished_rows
-- Rows that are no ending, such as STARTED or RETRY: Celery never cleans them up.
SELECT task FROM fact WHERE has_row AND NOT recorded;
