-- The audit's queries, in DuckDB's SQL: the fate of each task. `witnesses.sql` loads their tables. Each query has a
-- name; bind parameters are written $name.

-- name: entries
-- One entry per task that was intended to be sent. A task that retries is published again under the same id: `known`
-- says whether any publish was accepted, `outcome` is the result of the last publish, and `queue` its queue. What is
-- expected of a task stands in its first `intended`, or in `expected` if its producer was not the process that sent it.
CREATE TABLE entry AS
SELECT task,
       arg_min(name, t) FILTER (kind = 'intended') AS name,
       arg_max(queue, t) FILTER (kind = 'intended') AS queue,
       coalesce(max(t) FILTER (kind = 'intended' AND transient) = max(t) FILTER (kind = 'intended'), false) AS is_transient,
       arg_min(coalesce(due, t), t) FILTER (kind = 'intended') AS due_t,
       max(t) FILTER (kind = 'intended') AS last_intended_t,
       max(expires) AS expires,
       arg_min(expect::VARCHAR, t) AS expect,
       count(*) FILTER (kind = 'intended') AS times,
       count(effects) > 0 AS declared,
       bool_or(kind = 'accepted') AS known,
       CASE WHEN coalesce(max(t) FILTER (kind = 'intended') > max(t) FILTER (kind NOT IN ('intended', 'expected')), true)
            THEN 'none'
            -- A number of each outcome takes less time than its word.
            ELSE ['accepted', 'unconfirmed', 'refused', 'unknown'][
                arg_max(CASE kind WHEN 'accepted' THEN CASE WHEN confirmed IS false THEN 2 ELSE 1 END
                                  WHEN 'refused' THEN 3 ELSE 4 END, t)
                FILTER (kind NOT IN ('intended', 'expected'))]
            END AS outcome
FROM line WHERE kind IN ('intended', 'expected', 'accepted', 'refused', 'unknown') AND task IS NOT NULL
GROUP BY task HAVING bool_or(kind = 'intended');

-- name: runs
-- Per task, the workers' records: how often it began, how often it ended by itself, and how it ended. An execution
-- whose process was stopped is unwound, and its last state is UNKNOWN; that is not an end. `again` counts the
-- executions that asked for another one: a retry, a replacement under the same id, or a message put back into its
-- queue.
CREATE TABLE run AS
SELECT task,
       count(*) FILTER (kind = 'started') AS starts,
       max(t) FILTER (kind = 'started') AS last_start_t,
       count(*) FILTER (kind = 'finished' AND outside IS NOT true AND state <> 'UNKNOWN') AS ends,
       count(*) FILTER (kind = 'finished' AND state IN ('RETRY', 'IGNORED', 'REJECTED')) AS again,
       bool_or(kind = 'finished' AND state = 'SUCCESS') AS succeeded,
       bool_or(kind = 'finished' AND state = 'FAILURE') AS failed,
       bool_or(kind = 'revoked') AS revoked,
       bool_or(kind = 'discarded') AS discarded,
       arg_max(state, t) FILTER (kind = 'finished') AS last_state,
       arg_max(split_part(error, ':', 1), t) FILTER (kind = 'finished' AND state = 'FAILURE') AS error,
       bool_or(ignored IS true) AS ignored,
       min(t) FILTER (kind = 'finished' AND state = 'SUCCESS') AS success_t,
       max(t) FILTER (kind = 'finished' AND store_s IS NOT NULL AND state IN ('SUCCESS', 'FAILURE')) AS stored_t,
       arg_max(file, t) FILTER (kind = 'finished' AND store_s IS NOT NULL AND state IN ('SUCCESS', 'FAILURE')) AS stored_file
FROM line WHERE kind IN ('started', 'finished', 'revoked', 'discarded') AND task IS NOT NULL
GROUP BY task;

-- name: executions
-- For each task that began more than once, or began and did not end: the outcome on each worker. `code` is the exit
-- code of the last process that began it and did not end it, as far as its parent reported it (for a signal: its
-- number, negative), and `is_starved` tells whether the kernel killed it for memory. `grown_kb` is the peak memory that
-- such a process had before, if that had grown by half since its first task. What a process dies of after it ended the
-- task says nothing about the task.
CREATE TABLE execution AS
WITH said AS (
         SELECT line.*, owner.node AS worker, owner.pid AS process FROM line JOIN owner USING (file)
         WHERE line.kind IN ('started', 'finished') AND line.task IN (SELECT task FROM run WHERE starts > 1 OR starts > ends)
     ),
     gone AS (
         SELECT owner.node AS worker, line.child AS process, line.t, line.code, line.out_of_memory IS true AS is_starved
         FROM line JOIN owner USING (file)
         WHERE line.kind = 'exited'
     ),
     open AS (
         SELECT task, worker, process, max(t) FILTER (kind = 'started') AS began_t
         FROM said GROUP BY task, worker, process
         HAVING began_t > coalesce(max(t) FILTER (kind = 'finished' AND state <> 'UNKNOWN'), 0)
     ),
     dead AS (
         SELECT open.task, open.worker, open.process, open.began_t, arg_min(gone.code, gone.t) AS code,
                arg_min(gone.is_starved, gone.t) AS is_starved
         FROM open JOIN gone ON gone.worker = open.worker AND gone.process = open.process AND gone.t >= open.began_t
         GROUP BY open.task, open.worker, open.process, open.began_t
     ),
     grown AS (
         SELECT owner.node AS worker, owner.pid AS process, max(line.peak_kb) AS kb FROM line JOIN owner USING (file)
         WHERE line.peak_kb IS NOT NULL GROUP BY ALL HAVING kb > 1.5 * min(line.peak_kb)
     ),
     summed AS (
         SELECT task, worker,
                count(*) FILTER (kind = 'started') AS starts,
                bool_or(kind = 'started' AND redelivered IS NOT true) AS is_first_delivery,
                arg_max(state, t) FILTER (kind = 'finished' AND state <> 'UNKNOWN') AS state,
                arg_max(error, t) FILTER (kind = 'finished' AND error IS NOT NULL) AS error
         FROM said GROUP BY task, worker
     )
SELECT summed.*, arg_max(dead.code, dead.began_t) AS code,
       arg_max(dead.is_starved, dead.began_t) AS is_starved,
       arg_max(grown.kb, dead.began_t) FILTER (dead.is_starved) AS grown_kb
FROM summed LEFT JOIN dead USING (task, worker) LEFT JOIN grown USING (worker, process) GROUP BY ALL;

-- name: cuts
-- The times at which a worker lost its connection to the broker. `overdue_ms` is the broker's time-out if it was the
-- reason: the worker had held a message for longer without an acknowledgement.
CREATE TABLE cut AS
SELECT owner.node AS worker, line.t,
       TRY_CAST(regexp_extract(line.reason, 'delivery acknowledgement .*imeout value used: (\d+) ms', 1) AS BIGINT)
           AS overdue_ms
FROM line JOIN owner USING (file) WHERE line.kind = 'disconnected';

-- name: fanouts
-- Tasks that one publish brought to several workers, as a broadcast does: each worker got a first delivery.
CREATE TABLE fanout AS
SELECT task, count(*) AS workers FROM execution
WHERE is_first_delivery AND task IN (SELECT task FROM entry WHERE times = 1)
GROUP BY task HAVING count(*) > 1;

-- name: discards
-- Messages that a worker discarded, and the reason.
CREATE TABLE discard AS
SELECT line.task, arg_max(line.reason, line.t) AS reason, arg_max(owner.node, line.t) AS worker
FROM line JOIN owner USING (file) WHERE line.kind = 'discarded' GROUP BY line.task;

-- name: tracebacks
-- Tracebacks of failed tasks: a process records them for the first failures of each class.
CREATE TABLE told AS
SELECT line.task, arg_max(line.traceback, line.t) AS traceback, arg_max(owner.node, line.t) AS worker
FROM line JOIN owner USING (file) WHERE line.traceback IS NOT NULL GROUP BY line.task;

-- name: promised
-- The tasks announced by each task's message to follow it.
CREATE TABLE promised AS
SELECT DISTINCT predecessor, step.task AS task, step.name AS name, step.way AS way
FROM (
    SELECT task AS predecessor, unnest(from_json(steps, '[{"task": "VARCHAR", "name": "VARCHAR", "way": "VARCHAR"}]')) AS step
    FROM line WHERE steps IS NOT NULL
);

-- name: children
-- The tasks that tasks with promises sent, by name. A link has no id of its own before it is sent.
CREATE TABLE child AS
SELECT parent, name FROM line WHERE parent IN (SELECT predecessor FROM promised);

-- name: called
-- Tasks whose errbacks Celery called in place.
CREATE TABLE called AS SELECT task FROM line WHERE kind = 'errback';

-- name: unlocks
-- The tasks that wait for the members of a chord, each with its members.
CREATE TABLE unlock AS
SELECT task, unnest(members) AS member FROM line WHERE members IS NOT NULL;

-- name: disorders
-- Tasks that began before a task that they follow: a step before its predecessor ended, a chord's body before its
-- member did. Nobody tells when a step may be sent, except whoever sends it: Celery sends the next step when the
-- predecessor has returned, and stores the predecessor's result after that. A body may begin once the results of all
-- members are stored, which a line tells later, by no more than $untold_s if it does not say by how much. A task that
-- was replaced began before the one that now precedes it was sent, so that only later executions count.
CREATE TABLE disorder AS
WITH pair AS (
         SELECT predecessor AS announcer, predecessor, task, way = 'body' AS is_body FROM promised
         WHERE task IS NOT NULL AND (way = 'next' OR way = 'body' AND predecessor NOT IN (SELECT task FROM unlock))
         UNION ALL
         SELECT unlock.task, unlock.member, promised.task, true FROM promised
         JOIN unlock ON unlock.task = promised.predecessor
         WHERE promised.way = 'body' AND promised.task IS NOT NULL
     ),
     announced AS (SELECT task AS announcer, min(t) AS t FROM line WHERE steps IS NOT NULL GROUP BY task),
     start AS (SELECT task, t FROM line WHERE kind = 'started' AND task IN (SELECT task FROM pair)),
     began AS (
         SELECT pair.predecessor, pair.task, bool_and(pair.is_body) AS is_body, min(start.t) AS t
         FROM pair JOIN announced USING (announcer) JOIN start ON start.task = pair.task AND start.t >= announced.t
         GROUP BY pair.predecessor, pair.task
     ),
     done AS (
         SELECT task AS predecessor, min(t - coalesce(since_store_s, $untold_s)) AS t FROM line
         WHERE kind = 'finished' AND state = 'SUCCESS' AND task IN (SELECT predecessor FROM pair) GROUP BY task
     ),
     sent AS (
         SELECT task, parent AS predecessor, min(t) AS t FROM line
         WHERE kind = 'intended' AND parent IS NOT NULL AND task IN (SELECT task FROM pair) GROUP BY ALL
     )
SELECT began.task, began.predecessor, began.is_body, done.t IS NOT NULL AS has_ended
FROM began LEFT JOIN done USING (predecessor) LEFT JOIN sent USING (task, predecessor)
WHERE coalesce(done.t > began.t, true) AND (began.is_body OR coalesce(sent.t > began.t, true));

-- name: hasties
-- Tasks that were sent in a transaction of the app's database, and began before it was committed, or although it was
-- rolled back. The last publish before the end of the transaction is the one in it.
CREATE TABLE hasty AS
WITH ending AS (SELECT task, t, rolled_back IS true AS rolled_back, file FROM line WHERE kind = 'committed'),
     sent AS (
         SELECT ending.task, ending.t, ending.rolled_back, max(line.t) AS sent_t
         FROM ending JOIN line ON line.task = ending.task AND line.file = ending.file AND line.t <= ending.t
         WHERE line.kind = 'intended' GROUP BY ending.task, ending.t, ending.rolled_back
     )
SELECT sent.task, bool_or(sent.rolled_back) AS rolled_back, max(sent.t - line.t) AS early_s
FROM sent JOIN line ON line.task = sent.task AND line.t >= sent.sent_t
WHERE line.kind = 'started' AND (sent.rolled_back OR line.t < sent.t) GROUP BY sent.task;

-- name: followers
-- Tasks that follow another one, in a chain or as the body of a chord. If that one fails, Celery records a failure for
-- each of them, though they were never sent.
CREATE TABLE follower AS SELECT unnest(follow) AS task FROM line WHERE follow IS NOT NULL;

-- name: span
-- The end of the run by its journal: the time of the last line of all.
CREATE TABLE span AS SELECT max(last_t) AS end_t FROM file;

-- name: went_on
-- The run went on until the broker was asked: a message that expired meanwhile left no line.
UPDATE span SET end_t = greatest(end_t, $asked_t::DOUBLE);

-- name: workers
-- Executions begun per worker; also the workers that began none.
SELECT node, sum(starts) AS starts FROM owner
GROUP BY node HAVING bool_or(role = 'worker') OR sum(starts) > 0 ORDER BY node;

-- name: memory
-- Peak resident memory per worker in kB: the sum of its processes' peaks.
SELECT node, sum(peak_kb) AS peak_kb FROM owner WHERE peak_kb IS NOT NULL GROUP BY node ORDER BY node;

-- name: presences
-- Each worker with the number of tasks that it runs at once, from when it was ready to its last line.
CREATE TABLE presence AS
SELECT file.node, (any_value(setting.said)->>'concurrency')::BIGINT AS concurrency,
       min(ready.t) AS ready_t, max(file.last_t) AS last_t
FROM file JOIN setting ON setting.node = file.node
LEFT JOIN (SELECT file, t FROM line WHERE kind = 'ready') AS ready ON ready.file = file.file
GROUP BY file.node HAVING bool_or(file.role = 'worker') AND concurrency > 0 AND ready_t IS NOT NULL;

-- name: work_span
-- The time in which tasks were received and ran.
SELECT min(t), max(t) FROM line WHERE kind IN ('received', 'started', 'finished') HAVING count(*) > 0;

-- name: presence_count
SELECT count(*) FROM presence;

-- name: helds
-- For how long a worker held a message: from its receipt, or from the time before which the task must not run, until the
-- worker began the task. One that it did not begin does not count. One task of $one_in is looked at.
CREATE TABLE held AS
SELECT owner.node, line.task, max(greatest(line.t, coalesce(line.eta, 0))) FILTER (kind = 'received') AS from_t,
       min(line.t) FILTER (kind = 'started') AS until_t
FROM line JOIN owner USING (file)
WHERE kind IN ('received', 'started') AND hash(line.task) % $one_in::UBIGINT = 0
GROUP BY owner.node, line.task HAVING until_t > from_t;

-- name: loads
-- Per worker and slot of time: how many more executions are open and messages held at its end than at its beginning,
-- and the seconds that these changes add in the slot itself. A message in `held` stands for $one_in.
CREATE TABLE load AS
WITH change AS (
         SELECT owner.node, t, CASE kind WHEN 'started' THEN 1 ELSE -1 END AS running, 0 AS held
         FROM line JOIN owner USING (file) WHERE kind = 'started' OR kind = 'finished' AND outside IS NOT true
         UNION ALL SELECT node, from_t, 0, $one_in::BIGINT FROM held
         UNION ALL SELECT node, until_t, 0, -$one_in::BIGINT FROM held
     )
SELECT node, floor((t - $begin_t) / $slot_s)::BIGINT AS slot, sum(running) AS running, sum(held) AS held,
       sum(running * ($begin_t + (slot + 1) * $slot_s - t)) AS running_s,
       sum(held * ($begin_t + (slot + 1) * $slot_s - t)) AS held_s
FROM change GROUP BY ALL;

-- name: hoarded
-- Per worker: the seconds for which its processes had nothing to do while another worker held messages that it had not
-- begun, and the seconds for which this worker held messages while another had nothing to do. Of a worker that runs no
-- more, nobody knows for how long it ran after its last line.
WITH slot AS (SELECT unnest(generate_series(0, (SELECT max(slot) FROM load))) AS slot),
     seen AS (
         SELECT presence.node, slot.slot, presence.concurrency,
                least(CASE WHEN list_contains($alive::VARCHAR[], presence.node) THEN $end_t ELSE last_t END,
                      $begin_t + (slot.slot + 1) * $slot_s)
                - greatest(ready_t, $begin_t + slot.slot * $slot_s) AS there_s,
                coalesce(load.running_s, 0) + $slot_s * coalesce(sum(load.running) OVER before, 0) AS running_s,
                coalesce(load.held_s, 0) + $slot_s * coalesce(sum(load.held) OVER before, 0) AS held_s
         FROM presence CROSS JOIN slot LEFT JOIN load ON load.node = presence.node AND load.slot = slot.slot
         WINDOW before AS (PARTITION BY presence.node ORDER BY slot.slot ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
     ),
     idle AS (
         SELECT node, slot, held_s, greatest(concurrency * greatest(there_s, 0) - running_s, 0) AS idle_s FROM seen
     ),
     compared AS (
         SELECT node, idle_s, held_s, sum(held_s) OVER every - held_s AS held_by_others_s,
                sum(idle_s) OVER every - idle_s AS idle_of_others_s
         FROM idle WINDOW every AS (PARTITION BY slot)
     )
SELECT node, sum(least(idle_s, held_by_others_s)) AS idle_s, sum(least(held_s, idle_of_others_s)) AS held_s
FROM compared GROUP BY node ORDER BY idle_s DESC, node;

-- name: waited
-- Tasks that waited in a worker for longer than $least_s seconds before it began them.
SELECT DISTINCT task FROM held WHERE until_t - from_t > $least_s;

-- name: growths
-- Per worker: by how many MiB its processes grew in 1,000 tasks, and over how many tasks that was measured. The slope of
-- a straight line through all looks at a process is less sensitive to a single one than the difference of two. The
-- first look is left out, because a process loads modules in its first tasks; fewer than three say nothing.
WITH look AS (
         SELECT file, rss_kb, ran, row_number() OVER (PARTITION BY file ORDER BY ran) AS number
         FROM line WHERE rss_kb IS NOT NULL AND ran IS NOT NULL
     ),
     process AS (
         SELECT file, regr_slope(rss_kb, ran) AS kb, max(ran) - min(ran) AS tasks FROM look
         WHERE number > 1 GROUP BY file HAVING count(*) > 2 AND tasks > 0
     )
SELECT owner.node, sum(kb * tasks) / sum(tasks) * 1000 / 1024 AS mb, sum(tasks)::BIGINT AS tasks
FROM process JOIN owner USING (file) GROUP BY owner.node ORDER BY owner.node;

-- name: early_runs
-- Executions that began before their due time. Each retry has its own. An execution belongs to a publish before it with
-- as many retries: the first message may be delivered again when that of the retry waits already, because the worker
-- died in between. If there is no such publish, it belongs to the last one before it. The margin of 0.001 s is for the worker's timer, which may be up to a millisecond early by Python's
-- rounding. A smaller margin would call such an execution early; a larger one would hide a clock that is wrong.
CREATE TABLE early_run AS
WITH intent AS (SELECT task, t, due, coalesce(retries, 0) AS retries FROM line WHERE kind = 'intended'
                    AND task IN (SELECT task FROM line WHERE due IS NOT NULL)),
     start AS (SELECT file, n, task, t, coalesce(retries, 0) AS retries FROM line WHERE kind = 'started'
                    AND task IN (SELECT task FROM intent)),
     own AS (
         SELECT start.file, start.n, start.task, start.t, min(coalesce(intent.due, intent.t)) AS due
         FROM start JOIN intent USING (task, retries) WHERE start.t >= intent.t GROUP BY ALL
     ),
     other AS (SELECT * FROM start ANTI JOIN own USING (file, n))
SELECT task FROM own WHERE t < due - 0.001
UNION
SELECT other.task FROM other ASOF JOIN intent ON other.task = intent.task AND other.t >= intent.t
WHERE other.t < intent.due - 0.001;

-- name: wants
-- The effects expected of each task; a task that declared none has no row here. Most tasks have one effect and were
-- sent once, so that nothing comes twice.
CREATE TABLE want AS
SELECT task, effects[1] AS key FROM line
WHERE kind IN ('intended', 'expected') AND len(effects) = 1
  AND task NOT IN (SELECT task FROM entry WHERE times > 1)
UNION ALL
SELECT DISTINCT task, unnest(effects) FROM line
WHERE kind IN ('intended', 'expected')
  AND (len(effects) > 1 OR len(effects) = 1 AND task IN (SELECT task FROM entry WHERE times > 1));

-- name: forget_wants
DELETE FROM want;

-- name: dead
-- Tasks of dead letters: messages in a queue without consumers that another queue got rid of.
CREATE TABLE dead AS
SELECT unnest($tasks::VARCHAR[]) AS task;

-- name: effects_of
-- Per task whose effects are not exactly the expected ones: how many are absent, the largest number of extra
-- occurrences of one of them, and the same without those that process deaths excuse. Tasks may share a key; then the
-- death of any of them excuses one more.
CREATE TABLE had AS
WITH seen AS (
         SELECT key, count(*) AS times
         FROM (SELECT key FROM effect WHERE key IS NOT NULL
               UNION ALL SELECT name FROM other_name)
         GROUP BY key),
     excused AS (
         SELECT want.key, sum(run.starts - run.ends) AS deaths
         FROM want JOIN run USING (task) WHERE run.starts > run.ends GROUP BY want.key
     )
SELECT want.task,
       count(*) FILTER (seen.times IS NULL) AS absent,
       count(*) FILTER (seen.times IS NULL
           AND NOT coalesce(row_kind.seen, CASE WHEN starts_with(key, 'mail:') THEN $mails ELSE $others END)) AS unwatched,
       coalesce(max(seen.times), 1) - 1 AS extra,
       coalesce(max(seen.times - coalesce(excused.deaths, 0)), 1) - 1 AS unexcused
FROM want LEFT JOIN seen USING (key) LEFT JOIN excused USING (key)
LEFT JOIN row_kind ON split_part(key, ':', 1) = row_kind.kind GROUP BY want.task
HAVING absent > 0 OR extra > 0 OR unexcused > 0;

-- name: entries_run
-- Each entry with the workers' records of it. For a task without an entry, `times` is NULL. Joining two large tables at
-- a time keeps the memory small.
CREATE TABLE entry_run AS SELECT * FROM entry FULL JOIN run USING (task);

-- name: facts
-- All that is known of each entry, in one row. The broker drops an expired message without notice: if its time has come
-- and no worker took it, it expired. Without journals of the workers ($executions is false), it cannot be known that no
-- worker took it; there a row counts as the execution that wrote it.
CREATE TABLE fact AS
WITH known_of AS (
    SELECT said.* EXCLUDE (
               expect, starts, ends, again, last_start_t, ignored, succeeded, success_t, failed, revoked, discarded, error,
               last_state, stored_t, stored_file, is_transient
           ),
           -- A broker loses such a message if it stops, which a worker's lost connection shows.
           coalesce(said.is_transient AND said.last_intended_t < (SELECT max(t) FROM cut), false) AS is_transient,
           -- Each parsing of a JSON text takes time.
           json_extract_string(said.expect, ['$.state', '$.digest', '$.text', '$.start', '$.error']) AS wanted,
           coalesce(wanted[1], 'SUCCESS') AS expect_state,
           json_extract(said.expect, '$.result')::VARCHAR AS expect_result,
           coalesce(wanted[2], expected.digest) AS expect_digest,
           wanted[3] AS expect_text,
           wanted[4] AS expect_start,
           expect_result IS NOT NULL OR expect_digest IS NOT NULL OR expect_text IS NOT NULL AS expects_result,
           wanted[5] AS expect_error,
           coalesce(said.starts, 0) AS starts,
           greatest(coalesce(said.starts - said.ends, 0), 0) AS cut_short,
           coalesce(said.again, 0) AS again,
           said.last_start_t,
           coalesce(said.ignored, false) AS ignored,
           coalesce(said.succeeded, false) AS succeeded,
           coalesce(said.success_t, CASE WHEN result.status = 'SUCCESS' THEN result.done_t END) AS success_t,
           result.status,
           result.codec,
           result.value,
           result.text,
           result.digest,
           result.start,
           result.task IS NOT NULL AS has_row,
           coalesce(gone.expired, false) AS row_expired,
           moving.task IS NOT NULL AS is_moving,
           coalesce(result.status IN ('SUCCESS', 'FAILURE', 'REVOKED'), false) AS recorded,
           coalesce(said.failed, false) AS failed,
           coalesce(said.revoked, false) AS revoked,
           coalesce(said.discarded, false) AS discarded,
           coalesce(said.last_state = 'IGNORED' AND said.starts >= said.times, false) AS set_aside,
           coalesce(fanout.workers, 1) AS deliveries,
           dead_task.task IS NOT NULL AS is_dead,
           -- What the row says counts. One of a failure may say no class.
           CASE WHEN result.codec = 'json' AND result.status <> 'FAILURE' THEN NULL
                ELSE coalesce(CASE WHEN result.codec = 'json' THEN json_extract_string(result.value, '$.exc_type') END,
                              said.error) END AS error,
           coalesce(had.absent, 0) AS absent,
           coalesce(had.unwatched, 0) AS unwatched,
           coalesce(had.extra, 0) AS extra,
           coalesce(had.unexcused, 0) AS unexcused,
           left_over.task IS NOT NULL AS is_left,
           coalesce(said.starts, 0) > 0 OR (NOT $executions AND result.task IS NOT NULL) AS ran,
           $executions AND left_over.task IS NULL AND coalesce(said.starts, 0) = 0 AND result.task IS NULL
               AND coalesce(said.expires <= span.end_t, false) AS expired
    FROM (SELECT * FROM entry_run WHERE times IS NOT NULL) AS said CROSS JOIN span
    LEFT JOIN result USING (task)
    LEFT JOIN had USING (task)
    LEFT JOIN left_over USING (task)
    LEFT JOIN gone USING (task)
    LEFT JOIN expected USING (task)
    LEFT JOIN (SELECT DISTINCT task FROM moving) AS moving USING (task)
    LEFT JOIN fanout USING (task)
    LEFT JOIN (SELECT DISTINCT task FROM dead) AS dead_task USING (task)
)
SELECT * EXCLUDE (wanted),
       CASE WHEN recorded THEN status
            WHEN succeeded THEN 'SUCCESS'
            WHEN failed THEN 'FAILURE'
            WHEN revoked OR expired THEN 'REVOKED'
            WHEN discarded THEN 'DISCARDED'
            WHEN set_aside THEN 'IGNORED' END AS ending,
       -- None of these leaves a row that says how it ended.
       ignored OR expired OR set_aside OR row_expired AS unwritten,
       NULL::VARCHAR AS fate
FROM known_of;

-- name: unseen
-- Tasks whose row says that they succeeded, though no journal says that they began.
SELECT task FROM fact WHERE status = 'SUCCESS' AND starts = 0 AND NOT is_moving;

-- name: mismatches
-- Results that may differ from the expected ones: the texts differ, or one of them is a digest. Python compares the
-- values, because the order of an object's members has no meaning.
SELECT task, expect_result, expect_digest, value, digest FROM fact
WHERE ending = 'SUCCESS' AND codec = 'json'
  AND CASE WHEN expect_text = text THEN false
           WHEN expect_digest IS NOT NULL AND digest IS NOT NULL THEN expect_digest <> digest
           WHEN expect_digest IS NOT NULL OR expect_text IS NOT NULL THEN true
           WHEN expect_result IS NOT NULL THEN digest IS NOT NULL OR json(value)::VARCHAR <> expect_result END;

-- name: wrong
CREATE TABLE wrong (task VARCHAR);

-- name: fates
-- Exactly one fate each: the first line that holds decides.
UPDATE fact SET fate = CASE
    -- Exceeding the promise is a breach, regardless of what may still come.
    WHEN $effects = 'exactly-once' AND extra > 0 THEN 'duplicated'
    WHEN $effects = 'once-unless-killed' AND unexcused > 0 AND NOT is_moving THEN CASE WHEN $executions THEN 'duplicated' ELSE 'unknown' END
    WHEN $delivery = 'at-most-once' AND starts > deliveries + again THEN 'duplicated'
    -- The witnesses were read one after another, and the task went on in between.
    WHEN is_moving THEN 'pending'
    -- It did not end.
    WHEN ending IS NULL AND is_left THEN 'pending'
    WHEN ending IS NULL AND is_dead THEN 'lost'
    WHEN ending IS NULL AND outcome = 'refused' AND starts = 0 THEN 'refused'
    WHEN ending IS NULL AND outcome <> 'accepted' AND coalesce(last_start_t < last_intended_t, true) THEN 'unknown'
    WHEN ending IS NULL AND $incomplete THEN 'unknown'
    WHEN ending IS NULL THEN 'lost'
    -- It ended. If the witness that should have seen an effect could not be read, the fate is unknown.
    WHEN absent > 0 AND ending = expect_state AND (unwatched > 0 OR NOT $effects_readable) THEN 'unknown'
    WHEN absent > 0 AND ending = expect_state THEN 'lost'
    WHEN NOT $results_readable AND $recorded AND NOT unwritten THEN 'unknown'
    -- A worker discarded its message. Without a confirm, only that worker shows that it was accepted.
    WHEN ending = 'DISCARDED' THEN CASE WHEN outcome = 'accepted' THEN 'lost' ELSE 'unrecorded' END
    -- Only the row reports a success: no journal shows that it ran, or the journals that do show another end.
    WHEN ending = 'SUCCESS' AND NOT succeeded AND cut_short = 0 AND $executions THEN 'unknown'
    WHEN ending = 'SUCCESS' AND expect_state <> 'SUCCESS' THEN 'wrong'
    WHEN $recorded AND NOT recorded AND NOT unwritten THEN 'unrecorded'
    WHEN ending = 'FAILURE' AND expect_error IS NOT NULL AND error IS NULL THEN 'unknown'
    WHEN ending = 'FAILURE' AND error <> expect_error THEN 'wrong'
    WHEN ending <> 'SUCCESS' THEN 'failed'
    WHEN expects_result AND codec IS DISTINCT FROM 'json' THEN 'unknown'
    WHEN task IN (SELECT task FROM wrong) THEN 'wrong'
    WHEN NOT known THEN 'recovered'
    ELSE 'ok'
END;

-- name: entry_count
SELECT count(*) FROM entry;

-- name: counts
SELECT fate, count(*) AS count FROM fact GROUP BY fate ORDER BY fate;

-- name: of_fate
SELECT task FROM fact WHERE fate = $fate;

-- name: e2e
-- Milliseconds from due to the first success. quantile_disc returns a value that occurred, not an interpolated one.
SELECT count(*) AS count, quantile_disc(ms, 0.5) AS p50, quantile_disc(ms, 0.95) AS p95,
       quantile_disc(ms, 0.99) AS p99, max(ms) AS max
FROM (SELECT (success_t - due_t) * 1000 AS ms FROM fact WHERE success_t IS NOT NULL);

-- Each of the following queries finds ids, in a column named task; the audit counts them and shows the first.

-- name: unexpected_executions
SELECT task FROM entry_run
WHERE times IS NULL AND starts > 0
  AND task NOT IN (SELECT task FROM moving);

-- name: unexpected_rows
SELECT task FROM result
WHERE task NOT IN (SELECT task FROM entry) AND task NOT IN (SELECT task FROM moving)
  AND NOT (status = 'FAILURE' AND task IN (SELECT task FROM follower ANTI JOIN run USING (task) WHERE task IS NOT NULL));

-- name: unexpected_messages
SELECT task FROM (SELECT task FROM left_over UNION SELECT task FROM dead)
WHERE task NOT IN (SELECT task FROM entry) AND task NOT IN (SELECT task FROM moving);

-- name: failed_on_one_worker
-- Several workers got the message, and it failed on one of them though it should succeed; the row reports one worker
-- alone.
SELECT DISTINCT execution.task FROM execution JOIN fanout USING (task) JOIN fact USING (task)
WHERE execution.state = 'FAILURE' AND fact.expect_state = 'SUCCESS' AND fact.ending = 'SUCCESS';

-- name: failed_run
-- One run failed, and the row says that the task succeeded.
SELECT task FROM fact WHERE failed AND ending = 'SUCCESS' AND task NOT IN (SELECT task FROM fanout);

-- name: promised_count
SELECT count(*) FROM promised;

-- name: never_sent
-- Tasks that should follow one that succeeded, and were never sent: the next ones in a chain, with those after them,
-- and links. Other queries check the bodies of chords.
WITH due AS (
    SELECT promised.* FROM promised JOIN fact ON fact.task = promised.predecessor
    WHERE fact.succeeded AND fact.ending = 'SUCCESS'
),
broken AS (
    SELECT predecessor FROM due WHERE way = 'next' AND task NOT IN (SELECT task FROM entry)
)
SELECT task, name, predecessor FROM due
WHERE way IN ('next', 'later') AND predecessor IN (SELECT predecessor FROM broken)
  AND task NOT IN (SELECT task FROM entry)
UNION ALL
SELECT predecessor, name, predecessor FROM due
WHERE way = 'callback' AND (predecessor, name) NOT IN (SELECT (parent, name) FROM child)
UNION ALL
SELECT promised.predecessor, promised.name, promised.predecessor FROM promised
JOIN fact ON fact.task = promised.predecessor
WHERE promised.way = 'errback' AND fact.failed AND fact.ending = 'FAILURE'
  AND promised.predecessor NOT IN (SELECT task FROM called)
  AND (promised.predecessor, promised.name) NOT IN (SELECT (parent, name) FROM child);

-- name: out_of_order
-- Of a predecessor whose process died after it stored a success, nobody knows when that was.
SELECT DISTINCT disorder.task FROM disorder LEFT JOIN result ON result.task = disorder.predecessor
WHERE (disorder.has_ended OR result.status IS DISTINCT FROM 'SUCCESS')
  AND disorder.task NOT IN (SELECT task FROM moving) AND disorder.predecessor NOT IN (SELECT task FROM moving);

-- name: chords
-- Every chord whose body was not sent although no member failed: what it waits for, and whether that can still come.
CREATE TABLE chord AS
WITH body AS (
         SELECT DISTINCT task, name FROM promised WHERE way = 'body' AND task IS NOT NULL
           AND task NOT IN (SELECT task FROM entry)
     ),
     member AS (
         SELECT promised.task AS body, unlock.member AS task FROM promised JOIN unlock ON unlock.task = promised.predecessor
         WHERE promised.way = 'body'
         UNION
         SELECT task, predecessor FROM promised WHERE way = 'body' AND predecessor NOT IN (SELECT task FROM unlock)
     ),
     known AS (
         -- A member that should follow a failed task was never sent, and has a row that says so.
         SELECT member.body, member.task, fact.task IS NULL AS unsent,
                CASE WHEN fact.task IS NULL THEN result.status ELSE fact.ending END AS ending, fact.fate,
                fact.recorded
         FROM member LEFT JOIN fact USING (task) LEFT JOIN result USING (task)
     )
SELECT body.task AS task, body.name,
       count(*) AS members,
       count(*) FILTER (unsent) AS unsent,
       bool_or(unsent OR (known.ending IS NOT NULL AND NOT recorded AND $results_readable) OR known.fate = 'lost')
           AS is_hopeless,
       -- Where members were never sent, the body waits for these, whatever the others left.
       coalesce(list(known.task) FILTER (unsent), list(known.task) FILTER (NOT recorded)) AS waits_for
FROM body JOIN known ON known.body = body.task
GROUP BY body.task, body.name
HAVING NOT bool_or(coalesce(known.ending IN ('FAILURE', 'REVOKED'), false));

-- name: groups_half_sent
-- A group was saved before all of its members were sent; a client that waits for it waits for ever.
SELECT DISTINCT task FROM grouped WHERE task NOT IN (SELECT task FROM entry);

-- name: chords_half_sent
SELECT task FROM chord WHERE unsent > 0;

-- name: chords_hopeless
SELECT task FROM chord WHERE unsent = 0 AND (is_hopeless OR waits_for IS NULL);

-- name: chords_waiting
SELECT task FROM chord WHERE NOT is_hopeless AND waits_for IS NOT NULL;

-- name: left_after_end
SELECT task FROM fact WHERE is_left AND ending IS NOT NULL;

-- name: unexpected_effects
-- An effect is expected if some task declared it by any of its keys, or if the task that caused it has no declaration of
-- effects (an empty one expects none). If the task is unknown, it may be any task without a declaration. A task that was
-- named again while the evidence was read may have any effect. A query of the settings looks for its rows in every run,
-- also in one that is about other effects: its rows are only unexpected if one of its kind is expected, or nothing at all.
WITH wanted AS (SELECT key FROM want UNION ALL SELECT unnest(effects) FROM moving)
SELECT DISTINCT key AS task FROM effect
WHERE key IS NOT NULL AND key NOT IN (SELECT key FROM wanted)
  AND key NOT IN (SELECT key FROM other_name WHERE name IN (SELECT key FROM wanted))
  AND CASE WHEN task IS NULL THEN NOT EXISTS (FROM entry WHERE NOT declared) AND NOT EXISTS (FROM moving)
           ELSE task NOT IN (SELECT task FROM entry WHERE NOT declared UNION ALL SELECT task FROM moving) END
  AND (split_part(key, ':', 1) NOT IN (SELECT kind FROM row_kind)
       OR split_part(key, ':', 1) IN (SELECT split_part(key, ':', 1) FROM wanted) OR NOT EXISTS (FROM wanted));

-- name: failed_unexpectedly
SELECT task FROM fact WHERE fate = 'failed' AND ending <> expect_state;

-- name: reasons
-- The reasons of unexpected failures: the 3 most frequent errors, with one message of each. More would make the finding
-- too long to read. An exception with several arguments, such as an OSError, has its words in a later one.
SELECT coalesce(error, lower(ending)) AS error,
       min(coalesce(CASE WHEN json_type(said, '$.exc_message') = 'ARRAY'
                         THEN array_to_string(json_extract_string(said, '$.exc_message[*]'), ', ')
                         ELSE json_extract_string(said, '$.exc_message') END, '')),
       count(*) AS count
FROM (SELECT *, CASE WHEN codec = 'json' THEN value::JSON END AS said FROM fact)
WHERE fate = 'failed' AND ending <> expect_state
GROUP BY ALL ORDER BY count DESC, error LIMIT 3;

-- name: failed_without_effects
-- Tasks that failed unexpectedly, and of whose expected effects some never came.
SELECT task FROM fact WHERE fate = 'failed' AND ending <> expect_state AND absent > unwatched;

-- name: refused_but_ran
SELECT task FROM fact WHERE outcome = 'refused' AND NOT known AND ran;

-- name: early
SELECT task FROM early_run;

-- name: ran_before_commit
SELECT task FROM hasty;

-- name: hasty_stories
SELECT hasty.task, entry.name, hasty.rolled_back, hasty.early_s FROM hasty LEFT JOIN entry USING (task)
WHERE hasty.task IN (SELECT unnest($tasks::VARCHAR[])) ORDER BY hasty.task;

-- name: late
SELECT task FROM fact WHERE (success_t - due_t) > $deadline_s;

-- name: undecoded
SELECT task FROM fact WHERE codec IN ('other', 'unread');

-- name: ran_again
-- The promise allows it; it is still reported.
SELECT task FROM fact WHERE starts > 1 + again AND fate NOT IN ('duplicated', 'lost');

-- name: had_again
-- More than one occurrence of an effect: explained by an execution that was cut short, or allowed by the promise.
SELECT task FROM fact WHERE extra > 0 AND fate <> 'duplicated';

-- name: unfinished_rows
-- Rows without a final state, such as STARTED or RETRY: Celery never cleans them up.
SELECT task FROM fact WHERE has_row AND NOT recorded;

-- name: names
-- The following queries return more than the ids of tasks.
-- The names of some tasks, each with the number of tasks that have it. There are 3 at most, and a fourth tells that
-- there are others (`_NAMES` in explain.py).
SELECT name, count(*) AS count FROM entry WHERE task IN (SELECT unnest($tasks::VARCHAR[])) AND name IS NOT NULL
GROUP BY name ORDER BY count DESC, name LIMIT 4;

-- name: stories
-- The evidence on some tasks; see `Story`.
SELECT fact.task, fact.name, fact.queue, fact.starts, fact.ending, fact.outcome, fact.status, fact.error,
       fact.expect_state, coalesce(fact.expect_result, fact.expect_start || '...') AS expect_result, fact.expect_error,
       fact.codec,
       coalesce(fact.value, fact.start || '...') AS value,
       discard.reason AS discarded, discard.worker AS discarded_by,
       (SELECT string_agg(worker || coalesce(' ' || state, '') || coalesce(' (' || error || ')', ''), ', ' ORDER BY worker)
        FROM execution WHERE execution.task = fact.task) AS workers,
       (SELECT arg_max(code, starts) FROM execution WHERE execution.task = fact.task AND code IS NOT NULL) AS code,
       fact.is_transient
FROM fact LEFT JOIN discard USING (task) WHERE fact.task IN (SELECT unnest($tasks::VARCHAR[])) ORDER BY fact.task;

-- name: order_stories
-- Some tasks that began too early: each with one task that it should have followed, and whether that one succeeded.
SELECT disorder.task, any_value(step.name), min(disorder.predecessor) AS before,
       arg_min(predecessor.name, disorder.predecessor), arg_min(disorder.is_body, disorder.predecessor),
       arg_min(disorder.has_ended, disorder.predecessor), count(*) - 1
FROM disorder LEFT JOIN entry AS step ON step.task = disorder.task
LEFT JOIN entry AS predecessor ON predecessor.task = disorder.predecessor
WHERE disorder.task IN (SELECT unnest($tasks::VARCHAR[])) GROUP BY disorder.task ORDER BY disorder.task;

-- name: absent_keys
-- The first 3 effects that a task should have had and did not have, as a finding shows them.
SELECT key FROM want WHERE task = $task AND key NOT IN (SELECT key FROM effect WHERE key IS NOT NULL)
  AND key NOT IN (SELECT name FROM other_name) ORDER BY key LIMIT 3;

-- name: repeated_keys
-- The first 3 effects that came more than once, as a finding shows them.
SELECT want.key, count(*) AS times
FROM want JOIN (SELECT key FROM effect UNION ALL SELECT name FROM other_name) AS seen USING (key)
WHERE want.task = $task
GROUP BY want.key HAVING count(*) > 1 ORDER BY want.key LIMIT 3;

-- name: first_traceback
-- One traceback, because it takes many lines.
SELECT told.task, told.traceback, told.worker FROM told JOIN fact USING (task)
WHERE fate = 'failed' AND ending <> expect_state ORDER BY told.task LIMIT 1;

-- name: chord_stories
-- The evidence on some chords; see `ChordStory`. A finding shows the first 3 members (`_SHOWN` in explain.py).
SELECT chord.task, chord.name, chord.members, chord.unsent, list_sort(waits_for)[:3], coalesce(len(waits_for), 0),
       unlock_task.task AS unlock, coalesce(run.starts, 0) AS looks
FROM chord
LEFT JOIN (SELECT task AS body, predecessor AS task FROM promised
           WHERE way = 'body' AND predecessor IN (SELECT task FROM unlock)) AS unlock_task ON unlock_task.body = chord.task
LEFT JOIN run ON run.task = unlock_task.task
WHERE chord.task IN (SELECT unnest($tasks::VARCHAR[])) ORDER BY chord.task;

-- name: of_chord_members
-- Members of chords whose bodies nobody will ever send: those that a chord waits for.
SELECT DISTINCT unnest(waits_for) AS task FROM chord WHERE unsent = 0 AND is_hopeless;

-- name: retrying
SELECT task FROM fact WHERE again > 0 AND ending IS NULL;

-- name: cases
-- The tasks of a finding (`found`), in groups of the same evidence; see `Case` in reasons.py. A finding with more groups
-- than 50 has too many causes to be explained.
WITH death AS (
    SELECT task, list_sort(list(worker)) AS workers, arg_max(code, starts) FILTER (code IS NOT NULL) AS code,
           bool_or(is_starved) AS is_starved, max(grown_kb) AS grown_kb
    FROM execution SEMI JOIN found USING (task) GROUP BY task
),
overdue AS (
    SELECT execution.task, max(cut.overdue_ms) AS ms FROM execution SEMI JOIN found USING (task)
    JOIN cut USING (worker) GROUP BY execution.task
)
SELECT count(*) AS size, min(task, 3) AS tasks, name, coalesce(queue, $default_queue) AS queue, ending, status, outcome,
       error, expect_state, expect_error, expects_result, ignored, row_expired,
       starts, starts > greatest(times, deliveries) AS redelivered, again > 0 AS is_retried, cut_short > 0 AS is_cut_short,
       NOT ignored AND coalesce(success_t < last_start_t, false) AS stored_before, workers, code,
       left(discard.reason, 200) AS discarded, overdue.ms AS overdue_ms,
       is_transient,
       coalesce(is_starved, false) AS is_starved, grown_kb
FROM found JOIN fact USING (task) LEFT JOIN death USING (task) LEFT JOIN discard USING (task)
LEFT JOIN overdue USING (task)
GROUP BY ALL ORDER BY size DESC, tasks LIMIT 50;
