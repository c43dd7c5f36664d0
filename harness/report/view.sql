-- The queries of a run's view, in DuckDB's SQL. The audit has left its tables (`fact`, `want`, `told`, `promised`); see audit.sql
-- there. Each query has a name; bind parameters are written $name.

-- name: view_no_facts
-- The tables of an audit in which no task ran.
CREATE TABLE fact (
    task VARCHAR, name VARCHAR, fate VARCHAR, status VARCHAR, value VARCHAR, start VARCHAR, ending VARCHAR,
    expect_result VARCHAR, expect_start VARCHAR, absent BIGINT, extra BIGINT, is_left BOOLEAN, is_dead BOOLEAN,
    expired BOOLEAN, starts BIGINT
);
CREATE TABLE told (task VARCHAR, traceback VARCHAR, worker VARCHAR);
CREATE TABLE promised (predecessor VARCHAR, task VARCHAR, name VARCHAR, way VARCHAR);
CREATE TABLE want (task VARCHAR, key VARCHAR);

-- name: view_line_table
CREATE TABLE view_line (
    file VARCHAR, n BIGINT, t DOUBLE, kind VARCHAR, node VARCHAR, pid BIGINT, role VARCHAR, task VARCHAR, name VARCHAR,
    state VARCHAR, error VARCHAR, reason VARCHAR, queue VARCHAR, entry VARCHAR, "at" DOUBLE, parent VARCHAR,
    follow VARCHAR[], redelivered BOOLEAN, retries BIGINT, confirmed BOOLEAN, outside BOOLEAN, due DOUBLE, eta DOUBLE,
    store_s DOUBLE, child BIGINT, code BIGINT, signal VARCHAR, offset_s DOUBLE, rolled_back BOOLEAN
);

-- name: view_lines
-- Texts are shortened: nobody reads more of them in a table, and one of 50 MB would be most of the page.
INSERT INTO view_line BY NAME
SELECT parse_filename(filename) AS file,
       * EXCLUDE (filename) REPLACE (
           left(name, $long) AS name, left(error, $long) AS error, left(reason, $long) AS reason,
           left(queue, $long) AS queue, left(entry, $long) AS entry
       )
FROM read_json($files, format = 'newline_delimited', maximum_object_size = $longest, ignore_errors = true,
               filename = true, columns = {
    n: 'BIGINT', t: 'DOUBLE', kind: 'VARCHAR', node: 'VARCHAR', pid: 'BIGINT', role: 'VARCHAR', task: 'VARCHAR',
    name: 'VARCHAR', state: 'VARCHAR', error: 'VARCHAR', reason: 'VARCHAR', queue: 'VARCHAR', entry: 'VARCHAR',
    "at": 'DOUBLE', parent: 'VARCHAR', follow: 'VARCHAR[]', redelivered: 'BOOLEAN', retries: 'BIGINT',
    confirmed: 'BOOLEAN', outside: 'BOOLEAN', due: 'DOUBLE', eta: 'DOUBLE', store_s: 'DOUBLE', child: 'BIGINT',
    code: 'BIGINT', signal: 'VARCHAR', offset_s: 'DOUBLE', rolled_back: 'BOOLEAN'
}) WHERE kind IS NOT NULL AND t BETWEEN 0 AND $latest_t AND coalesce(due BETWEEN $first_date AND $last_date, true)
     AND coalesce(eta BETWEEN $first_date AND $last_date, true) AND coalesce("at" BETWEEN 0 AND $latest_t, true)
     AND coalesce(abs(store_s) <= $latest_t, true);

-- name: view_processes
CREATE TABLE view_process AS
SELECT *, row_number() OVER (ORDER BY node, pid, file) - 1 AS number FROM (
    SELECT file, coalesce(any_value(node) FILTER (kind = 'opened'), 'unknown') AS node,
           coalesce(any_value(pid) FILTER (kind = 'opened'), 0) AS pid,
           coalesce(any_value(role) FILTER (kind = 'opened'), '') AS role,
           max(t) AS last_t
    FROM view_line GROUP BY file
);

-- name: view_process_rows
SELECT node, pid, role FROM view_process ORDER BY number;

-- name: view_marks
-- Per task, the first time of each step.
CREATE TABLE view_mark AS
SELECT task,
       min(t) FILTER (kind = 'intended') AS sent_t,
       arg_min(coalesce(due, t), t) FILTER (kind = 'intended') AS due_t,
       min(t) FILTER (kind = 'accepted') AS accepted_t,
       min(t) FILTER (kind = 'started') AS started_t,
       max(t) FILTER (kind = 'finished' AND state IN ('SUCCESS', 'FAILURE')
                      OR kind IN ('revoked', 'discarded')) AS ended_t,
       min(t) FILTER (kind = 'finished' AND state = 'SUCCESS') AS success_t,
       arg_min(parent, t) FILTER (kind = 'intended' AND parent <> task) AS parent
FROM view_line WHERE task IS NOT NULL GROUP BY task;

-- name: view_runs
-- Each execution with its end: the last line `started` of the task in the same process before it.
CREATE TABLE view_run AS
SELECT ending.task, ending.t, ending.t - start.t - coalesce(ending.store_s, 0) AS run_s
FROM (SELECT task, file, t, store_s FROM view_line WHERE kind = 'finished' AND outside IS NOT true) AS ending
ASOF JOIN (SELECT task, file, t FROM view_line WHERE kind = 'started') AS start
ON ending.task = start.task AND ending.file = start.file AND ending.t >= start.t;

-- name: view_stages
CREATE TABLE view_stage AS
SELECT 'publish' AS stage, accepted_t AS t, accepted_t - sent_t AS s FROM view_mark WHERE accepted_t >= sent_t
UNION ALL SELECT 'queue', started_t, greatest(started_t - due_t, 0) FROM view_mark WHERE started_t >= sent_t
UNION ALL SELECT 'run', t, greatest(run_s, 0) FROM view_run
UNION ALL SELECT 'e2e', success_t, greatest(success_t - due_t, 0) FROM view_mark WHERE success_t >= sent_t;

-- name: view_span
-- From the first event of a task to the last one, or until a worker had the broker again.
SELECT min(t) FILTER (task IS NOT NULL), max(t) FILTER (task IS NOT NULL OR kind IN ('disconnected', 'reconnected'))
FROM view_line;

-- name: view_rates
SELECT floor((t - $begin_t) / $bin_s)::INTEGER AS bin, kind,
       count(*) AS count, count(*) FILTER (state = 'FAILURE') AS failed
FROM view_line WHERE task IS NOT NULL AND kind IN ('intended', 'started', 'finished') GROUP BY ALL;

-- name: view_flow
-- Per bin: how many more tasks the broker has accepted, less those that have ended.
SELECT floor((t - $begin_t) / $bin_s)::INTEGER AS bin, sum(change)::BIGINT AS change
FROM (SELECT accepted_t AS t, 1 AS change FROM view_mark WHERE accepted_t IS NOT NULL
      UNION ALL SELECT greatest(ended_t, accepted_t), -1 FROM view_mark WHERE accepted_t IS NOT NULL AND ended_t IS NOT NULL)
GROUP BY ALL;

-- name: view_stage_bins
SELECT stage, floor((t - $begin_t) / $bin_s)::INTEGER AS bin,
       quantile_disc(s, 0.5), quantile_disc(s, 0.95), quantile_disc(s, 0.99)
FROM view_stage GROUP BY ALL;

-- name: view_stage_figures
SELECT stage, count(*), avg(s), quantile_disc(s, 0.5), quantile_disc(s, 0.95), quantile_disc(s, 0.99), max(s)
FROM view_stage GROUP BY stage;

-- name: view_latency
-- A bar for each tenth of a power of ten: 1 ms to 1.26 ms, and so on.
SELECT floor(log10(greatest(s, 1e-5)) * $bars)::INTEGER AS bar, count(*)
FROM view_stage WHERE stage = 'e2e' GROUP BY bar ORDER BY bar;

-- name: view_shares
SELECT node, count(*) FILTER (kind = 'started'), count(*) FILTER (kind = 'finished' AND state = 'FAILURE'),
       count(DISTINCT pid) FILTER (kind = 'started')
FROM (SELECT view_process.node, view_process.role, view_process.pid, kind, state FROM view_line JOIN view_process USING (file))
GROUP BY node HAVING bool_or(role = 'worker') OR count(*) FILTER (kind = 'started') > 0 ORDER BY node;

-- name: view_exit_text
CREATE MACRO exit_text(code) AS CASE WHEN code < 0 THEN concat('by signal ', -code) ELSE concat('with code ', code) END;

-- name: view_node_marks
SELECT view_process.node, view_line.t, kind,
       CASE kind WHEN 'exited' THEN concat('process ', child, ' ', exit_text(code))
                 WHEN 'clock' THEN concat('moved by ', offset_s, ' s')
                 WHEN 'down' THEN coalesce(signal, '')
                 ELSE coalesce(reason, '') END AS text
FROM view_line JOIN view_process USING (file)
WHERE kind IN ('up', 'ready', 'down', 'exited', 'disconnected', 'reconnected', 'clock', 'died')
ORDER BY view_process.node, view_line.t LIMIT $most;

-- name: view_last
-- Per node, the times of the last lines of its processes.
SELECT node, list(DISTINCT last_t) FROM view_process GROUP BY node;

-- name: view_tasks
-- The tasks whose lives are shown: those that findings name, then all that are not ok, then a sample of the others.
CREATE TABLE view_task AS
WITH every AS (
    SELECT coalesce(fact.task, view_mark.task) AS task, coalesce(fate, 'unsent') AS fate,
           left(fact.name, $long) AS name, status, coalesce(value, start || '…') AS result,
           concat_ws('; ',
               CASE WHEN absent > 0 THEN concat('effects that never came: ', absent) END,
               CASE WHEN extra > 0 THEN concat('effects too many: ', extra) END,
               CASE WHEN is_left THEN 'its message was left in the broker or in a worker at the end' END,
               CASE WHEN is_dead THEN 'its message is a dead letter' END,
               CASE WHEN expired THEN 'its message expired before a worker took it' END,
               CASE WHEN fate = 'wrong' THEN concat('expected: ', coalesce(expect_result, expect_start || '…', 'another end')) END
           ) AS note, parent, sent_t
    FROM fact FULL JOIN view_mark USING (task)
), ranked AS (
    SELECT *, CASE WHEN task IN (SELECT unnest($named::VARCHAR[])) THEN 0 WHEN fate <> 'ok' THEN 1 ELSE 2 END AS rank
    FROM every ORDER BY rank, hash(task) LIMIT $most
)
SELECT * EXCLUDE (rank), row_number() OVER (ORDER BY sent_t, task) - 1 AS number FROM ranked;

-- name: view_counts
SELECT count(*), count(*) FILTER (fate <> 'ok') FROM (
    SELECT coalesce(fate, 'unsent') AS fate FROM fact FULL JOIN view_mark USING (task)
);

-- name: view_task_rows
SELECT task.task, coalesce(task.name, (SELECT any_value(name) FROM view_line WHERE task.fate = 'unsent' AND view_line.task = task.task)),
       task.fate, task.status, left(task.result, $long), task.note, parent.number
FROM view_task AS task LEFT JOIN view_task AS parent ON parent.task = task.parent ORDER BY task.number;

-- name: view_deaths
-- Executions that had not ended when their process did, as its parent says.
CREATE TABLE view_death AS
WITH gone AS (
    SELECT view_process.node, child AS pid, t, code FROM view_line JOIN view_process USING (file) WHERE kind = 'exited'
), child AS (
    SELECT view_process.file, number, t, code FROM view_process JOIN gone USING (node, pid)
), begun AS (
    SELECT task, file, max(t) FILTER (kind = 'started') AS began_t FROM view_line
    WHERE task IS NOT NULL AND kind IN ('started', 'finished') AND file IN (SELECT file FROM child) GROUP BY task, file
    HAVING began_t > coalesce(max(t) FILTER (kind = 'finished' AND state <> 'UNKNOWN'), 0)
)
SELECT task, number AS process, min(t) AS t, arg_min(code, t) AS code
FROM begun JOIN child USING (file) WHERE t >= began_t GROUP BY task, number;

-- name: view_events
SELECT view_task.number, view_line.t, kind, view_process.number AS process,
       CASE kind
       WHEN 'intended' THEN concat_ws(', ', 'to ' || queue, CASE WHEN retries > 0 THEN concat('retry ', retries) END,
           CASE WHEN due > view_line.t THEN concat('due ', round(due - view_line.t, 3), ' s later') END,
           'by the entry ' || entry)
       WHEN 'accepted' THEN CASE WHEN confirmed IS false THEN 'written to a socket, not confirmed' ELSE 'confirmed' END
       WHEN 'received' THEN concat_ws(', ', CASE WHEN redelivered THEN 'delivered again' END,
           CASE WHEN eta > view_line.t THEN concat('held for ', round(eta - view_line.t, 3), ' s') END)
       WHEN 'started' THEN concat_ws(', ', CASE WHEN retries > 0 THEN concat('retry ', retries) END,
           CASE WHEN redelivered THEN 'delivered again' END)
       WHEN 'finished' THEN concat_ws(': ', state || CASE WHEN outside THEN ' (told by the parent process)' ELSE '' END, error)
       WHEN 'committed' THEN CASE WHEN rolled_back THEN 'rolled back' ELSE '' END
       ELSE coalesce(reason, '') END AS text, n
FROM view_line JOIN view_task USING (task) JOIN view_process USING (file)
UNION ALL
SELECT view_task.number, view_death.t, 'exited', process, exit_text(code), 0 FROM view_death JOIN view_task USING (task)
UNION ALL
SELECT view_task.number, view_effect.t, 'effect', -1, left(key, $long), 0 FROM view_effect JOIN view_task USING (task)
ORDER BY 1, 2, 6, 3;

-- name: view_no_effects
CREATE TABLE view_effect (task VARCHAR, key VARCHAR, t DOUBLE);

-- name: view_effects
-- An effect that names no task belongs to each task that expects it, by its key or by another name.
INSERT INTO view_effect
WITH seen AS (
    SELECT row_number() OVER () AS number, task, key, t, also FROM read_json($files, format = 'newline_delimited',
        maximum_object_size = $longest, ignore_errors = true,
        columns = {task: 'VARCHAR', key: 'VARCHAR', t: 'DOUBLE', also: 'VARCHAR[]'})
    WHERE key IS NOT NULL
), named AS (
    SELECT number, t, key FROM seen WHERE task IS NULL UNION ALL SELECT number, t, unnest(also) FROM seen WHERE task IS NULL
)
SELECT task, key, t FROM seen WHERE task IS NOT NULL
UNION ALL
SELECT want.task, min(key), min(t) FROM named JOIN want USING (key) GROUP BY want.task, number;

-- name: view_follows
-- What follows a task by its message, in a chain or as the body of a chord.
SELECT DISTINCT task.number, next.number
FROM (SELECT task, unnest(follow) AS follows FROM view_line WHERE follow IS NOT NULL) AS said
JOIN view_task AS task ON task.task = said.task JOIN view_task AS next ON next.task = said.follows
ORDER BY 1, 2 LIMIT $most;

-- name: view_unsent
-- Tasks that should have followed another one, and that nobody has sent.
SELECT DISTINCT view_task.number, promised.task, left(promised.name, $long)
FROM promised JOIN view_task ON view_task.task = promised.predecessor
WHERE promised.task IS NOT NULL AND promised.task NOT IN (SELECT task FROM view_mark)
ORDER BY 1, 2 LIMIT $most;

-- name: view_tracebacks
SELECT view_task.number, left(traceback, $chars) FROM told JOIN view_task USING (task)
WHERE view_task.fate <> 'ok' ORDER BY view_task.number LIMIT $most;

-- name: view_ticks
-- The times at which beat sent each entry, by beat's clock.
SELECT entry, coalesce("at", t) AS sent_at FROM view_line WHERE entry IS NOT NULL AND kind = 'intended' ORDER BY entry, sent_at LIMIT $most;

-- name: view_seconds_of_interest
-- The lives that are not ok, from a second before they were sent; without an end, only their beginning.
SELECT mark.sent_t - 1, least(coalesce(ended_t, mark.sent_t), mark.sent_t + 60) + 2
FROM view_mark AS mark JOIN view_task USING (task) WHERE view_task.fate <> 'ok' AND mark.sent_t IS NOT NULL
ORDER BY 1 LIMIT $most;
