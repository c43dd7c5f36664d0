-- The audit's queries: what became of each task. `witnesses.sql` loads what they ask. In DuckDB's SQL, each under its
-- name; bind parameters are written $name.

-- name: entries
-- One entry a task that somebody intended to send. A task that retries is published again under the same id:
-- `known` says whether any publish was accepted, `outcome` what became of the last one, and `queue` where that went.
CREATE TABLE entry AS
SELECT task,
       arg_min(name, t) FILTER (kind = 'intended') AS name,
       arg_max(queue, t) FILTER (kind = 'intended') AS queue,
       arg_min(coalesce(due, t), t) FILTER (kind = 'intended') AS due_t,
       max(t) FILTER (kind = 'intended') AS last_intended_t,
       max(expires) AS expires,
       max(expect::VARCHAR) AS expect,
       count(*) FILTER (kind = 'intended') AS times,
       count(effects) > 0 AS declared,
       bool_or(kind = 'accepted') AS known,
       CASE WHEN coalesce(max(t) FILTER (kind = 'intended') > max(t) FILTER (kind <> 'intended'), true) THEN 'none'
            ELSE arg_max(CASE WHEN confirmed IS false THEN 'unconfirmed' ELSE kind END, t) FILTER (kind <> 'intended')
            END AS outcome
FROM line WHERE kind IN ('intended', 'accepted', 'refused', 'unknown') AND task IS NOT NULL
GROUP BY task HAVING bool_or(kind = 'intended');

-- name: runs
-- Per task, what the workers say: how often it began and came to an end by itself, and how it ended. An execution whose
-- process was stopped is unwound, and its last word is UNKNOWN; that is no end. `again` counts the executions that asked
-- for another one: a retry, a replacement, which goes by the same id, or a message put back into its queue.
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
       min(file) FILTER (kind = 'finished' AND store_s IS NOT NULL AND state IN ('SUCCESS', 'FAILURE')) AS stored_file
FROM line WHERE kind IN ('started', 'finished', 'revoked', 'discarded') AND task IS NOT NULL
GROUP BY task;

-- name: executions
-- Of each task that a worker began more than once, or began and did not end: what each worker made of it. `code` is what
-- the last process that began it exited with (of a signal: its number, negative), as far as its parent said so.
CREATE TABLE execution AS
WITH said AS (
         SELECT line.*, owner.node AS worker, owner.pid AS process FROM line JOIN owner USING (file)
         WHERE line.kind IN ('started', 'finished') AND line.task IN (SELECT task FROM run WHERE starts > 1 OR starts > ends)
     ),
     gone AS (
         SELECT owner.node AS worker, line.child AS process, line.t, line.code FROM line JOIN owner USING (file)
         WHERE line.kind = 'exited'
     ),
     summed AS (
         SELECT task, worker,
                count(*) FILTER (kind = 'started') AS starts,
                bool_or(kind = 'started' AND redelivered IS NOT true) AS is_first_delivery,
                arg_max(state, t) FILTER (kind = 'finished' AND state <> 'UNKNOWN') AS state,
                arg_max(error, t) FILTER (kind = 'finished' AND error IS NOT NULL) AS error,
                max(t) FILTER (kind = 'started') AS began_t,
                arg_max(process, t) FILTER (kind = 'started') AS process
         FROM said GROUP BY task, worker
     )
SELECT summed.task, summed.worker, any_value(starts) AS starts,
       any_value(is_first_delivery) AS is_first_delivery, any_value(state) AS state, any_value(error) AS error,
       arg_min(gone.code, gone.t) AS code
FROM summed LEFT JOIN gone ON gone.worker = summed.worker AND gone.process = summed.process AND gone.t >= began_t
GROUP BY summed.task, summed.worker;

-- name: fanouts
-- Tasks that one publish brought to several workers, as a broadcast does: none of them had it from another one.
CREATE TABLE fanout AS
SELECT task, count(*) AS workers FROM execution
WHERE is_first_delivery AND task IN (SELECT task FROM entry WHERE times = 1)
GROUP BY task HAVING count(*) > 1;

-- name: discards
-- Messages that a worker threw away, and why.
CREATE TABLE discard AS
SELECT line.task, arg_max(line.reason, line.t) AS reason, arg_max(owner.node, line.t) AS worker
FROM line JOIN owner USING (file) WHERE line.kind = 'discarded' GROUP BY line.task;

-- name: tracebacks
-- Where tasks failed: the first failures of each class in each process say so.
CREATE TABLE told AS
SELECT line.task, arg_max(line.traceback, line.t) AS traceback, arg_max(owner.node, line.t) AS worker
FROM line JOIN owner USING (file) WHERE line.traceback IS NOT NULL GROUP BY line.task;

-- name: promised
-- What was to follow each task, as its message says.
CREATE TABLE promised AS
SELECT DISTINCT predecessor, step.task AS task, step.name AS name, step.way AS way
FROM (
    SELECT task AS predecessor, unnest(from_json(steps, '[{"task": "VARCHAR", "name": "VARCHAR", "way": "VARCHAR"}]')) AS step
    FROM line WHERE kind = 'intended' AND json_type(steps) = 'ARRAY'
);

-- name: children
-- What tasks with links sent themselves, by name.
CREATE TABLE child AS
SELECT parent, name FROM line
WHERE kind = 'intended' AND parent IN (SELECT predecessor FROM promised WHERE way IN ('callback', 'errback'));

-- name: called
-- Tasks whose errbacks Celery called in place.
CREATE TABLE called AS SELECT task FROM line WHERE kind = 'errback';

-- name: unlocks
-- The tasks that wait for the members of a chord, each with its members.
CREATE TABLE unlock AS
SELECT task, unnest(members) AS member FROM line WHERE members IS NOT NULL;

-- name: followers
-- Tasks that were to follow another one, in a chain or as the body of a chord. If that one fails, Celery records a
-- failure for each of them, though they were never sent.
CREATE TABLE follower AS SELECT unnest(follow) AS task FROM line WHERE follow IS NOT NULL;

-- name: span
-- When the run ended, as far as its journal says: when the last line of all was written.
CREATE TABLE span AS SELECT max(last_t) AS end_t FROM file;

-- name: went_on
-- The run went on until the broker was asked: what expired meanwhile left no line.
UPDATE span SET end_t = greatest(end_t, $asked_t::DOUBLE);

-- name: workers
-- Who did the work: tasks begun, per worker; also the workers that began none.
SELECT node, sum(starts) AS starts FROM owner
GROUP BY node HAVING bool_or(role = 'worker') OR sum(starts) > 0 ORDER BY node;

-- name: memory
-- The most memory that each worker had resident: the sum over its processes of the most that each ever had, in kB.
SELECT node, sum(peak_kb) AS peak_kb FROM owner WHERE peak_kb IS NOT NULL GROUP BY node ORDER BY node;

-- name: early_runs
-- Executions that began before their time. Each execution belongs to the last publish before it; a retry has a time
-- of its own. The margin is for the worker's timer, which may be up to a millisecond early by Python's rounding.
CREATE TABLE early_run AS
WITH intent AS (SELECT task, t, due FROM line WHERE kind = 'intended'
                    AND task IN (SELECT task FROM line WHERE due IS NOT NULL))
SELECT DISTINCT start.task
FROM (SELECT task, t FROM line WHERE kind = 'started') AS start
ASOF JOIN intent ON start.task = intent.task AND start.t >= intent.t
WHERE start.t < intent.due - 0.001;

-- name: wants
-- The effects that each task was expected to have; a task that said nothing about effects has no row here. Most tasks
-- have one and were sent once, so that nothing comes twice.
CREATE TABLE want AS
SELECT task, effects[1] AS key FROM line
WHERE kind = 'intended' AND len(effects) = 1 AND task NOT IN (SELECT task FROM entry WHERE times > 1)
UNION ALL
SELECT DISTINCT task, unnest(effects) FROM line
WHERE kind = 'intended' AND (len(effects) > 1 OR len(effects) = 1 AND task IN (SELECT task FROM entry WHERE times > 1));

-- name: forget_wants
DELETE FROM want;

-- name: dead
-- Messages at rest in a queue that nobody consumes, because another queue got rid of them.
CREATE TABLE dead AS
SELECT unnest($tasks::VARCHAR[]) AS task;

-- name: effects_of
-- Per task whose effects are not just what was expected: how many never came, the most that one of them came too
-- often, and the same less what deaths excuse. Tasks may share a key; then the death of any of them excuses one more.
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
           AND NOT CASE WHEN starts_with(key, 'mail:') THEN $mails ELSE $others END) AS unwatched,
       coalesce(max(seen.times), 1) - 1 AS extra,
       coalesce(max(seen.times - coalesce(excused.deaths, 0)), 1) - 1 AS unexcused
FROM want LEFT JOIN seen USING (key) LEFT JOIN excused USING (key) GROUP BY want.task
HAVING absent > 0 OR extra > 0 OR unexcused > 0;

-- name: entries_run
-- Each entry with what the workers say of it, and what they say of tasks that nobody sent, where `times` is NULL. A join
-- of two large tables at a time keeps the memory small.
CREATE TABLE entry_run AS SELECT * FROM entry FULL JOIN run USING (task);

-- name: facts
-- All that is known of each entry, in one row. A message that expires is dropped by the broker, without a word to
-- anybody: if its time has come and nobody took it, that is what became of it. Where nobody saw the workers
-- ($executions is false), nobody can say that it was not taken; there a row stands for the execution that wrote it.
CREATE TABLE fact AS
WITH known_of AS (
    SELECT said.* EXCLUDE (
               expect, starts, ends, again, last_start_t, ignored, succeeded, success_t, failed, revoked, discarded, error,
               last_state, stored_t, stored_file
           ),
           -- Each reading of a JSON text takes its time.
           json_extract_string(said.expect, ['$.state', '$.digest', '$.text', '$.start', '$.error']) AS wanted,
           coalesce(wanted[1], 'SUCCESS') AS expect_state,
           json_extract(said.expect, '$.result')::VARCHAR AS expect_result,
           coalesce(wanted[2], expected.digest) AS expect_digest,
           wanted[3] AS expect_text,
           wanted[4] AS expect_start,
           expect_result IS NOT NULL OR expect_digest IS NOT NULL OR expect_text IS NOT NULL AS expects_result,
           wanted[5] AS expect_error,
           coalesce(said.starts, 0) AS starts,
           coalesce(said.ends, 0) AS ends,
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
           CASE WHEN result.codec = 'json' THEN json_extract_string(result.value, '$.exc_type') ELSE said.error END AS error,
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
       -- Neither leaves a row that says how it ended.
       ignored OR expired OR set_aside OR row_expired AS unwritten,
       NULL::VARCHAR AS fate
FROM known_of;

-- name: unseen
-- Tasks whose row says that they succeeded, though no journal says that they began.
SELECT task FROM fact WHERE status = 'SUCCESS' AND starts = 0 AND NOT is_moving;

-- name: mismatches
-- Results that are not known to be what was expected: their texts differ, or one of them is a digest. Whether the
-- values differ is decided outside, because the order of an object's members means nothing.
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
    -- More than was promised is a breach, whatever else may still come.
    WHEN $effects = 'exactly-once' AND extra > 0 THEN 'duplicated'
    WHEN $effects = 'once-unless-killed' AND unexcused > 0 AND NOT is_moving THEN CASE WHEN $executions THEN 'duplicated' ELSE 'unknown' END
    WHEN $delivery = 'at-most-once' AND starts > deliveries + again THEN 'duplicated'
    -- The witnesses were read one after another, and it went on in between.
    WHEN is_moving THEN 'pending'
    -- It never came to an end.
    WHEN ending IS NULL AND is_left THEN 'pending'
    WHEN ending IS NULL AND is_dead THEN 'lost'
    WHEN ending IS NULL AND outcome = 'refused' AND starts = 0 THEN 'refused'
    WHEN ending IS NULL AND outcome <> 'accepted' AND coalesce(last_start_t < last_intended_t, true) THEN 'unknown'
    WHEN ending IS NULL AND $incomplete THEN 'unknown'
    WHEN ending IS NULL THEN 'lost'
    -- It ended. A witness that should have seen it and could not be read leaves the question open.
    WHEN absent > 0 AND ending = expect_state AND (unwatched > 0 OR NOT $effects_readable) THEN 'unknown'
    WHEN absent > 0 AND ending = expect_state THEN 'lost'
    WHEN NOT $results_readable AND $recorded AND NOT unwritten THEN 'unknown'
    -- A worker threw its message away. That it was ever accepted, without a confirm nobody says but that worker.
    WHEN ending = 'DISCARDED' THEN CASE WHEN outcome = 'accepted' THEN 'lost' ELSE 'unrecorded' END
    -- The row is the only one to speak of a success: nobody saw it run, or all who saw it run saw something else.
    WHEN ending = 'SUCCESS' AND NOT succeeded AND cut_short = 0 AND $executions THEN 'unknown'
    WHEN ending = 'SUCCESS' AND expect_state <> 'SUCCESS' THEN 'wrong'
    WHEN $recorded AND NOT recorded AND NOT unwritten THEN 'unrecorded'
    WHEN ending = 'FAILURE' AND expect_error IS NOT NULL AND error IS NULL THEN 'unknown'
    WHEN ending = 'FAILURE' AND error <> expect_error THEN 'wrong'
    WHEN ending <> 'SUCCESS' THEN 'failed'
    WHEN expects_result AND codec IS DISTINCT FROM 'json' THEN 'unknown'
    WHEN task IN (SELECT task FROM wrong) THEN 'wrong'
    WHEN NOT coalesce(known, false) THEN 'recovered'
    ELSE 'ok'
END;

-- name: entry_count
SELECT count(*) FROM entry;

-- name: counts
SELECT fate, count(*) AS count FROM fact GROUP BY fate ORDER BY fate;

-- name: of_fate
SELECT task FROM fact WHERE fate = $fate;

-- name: e2e
-- Milliseconds from due to the first success. quantile_disc returns a value that occurred, not one in between.
SELECT count(*) AS count, quantile_disc(ms, 0.5) AS p50, quantile_disc(ms, 0.95) AS p95,
       quantile_disc(ms, 0.99) AS p99, max(ms) AS max
FROM (SELECT (success_t - due_t) * 1000 AS ms FROM fact WHERE success_t IS NOT NULL);

-- The queries from here on each find ids, in a column named task; the audit counts them and shows the first.

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
-- Of a message that several workers got, one of them failed where it was to succeed; the row tells of one worker alone.
SELECT DISTINCT execution.task FROM execution JOIN fanout USING (task) JOIN fact USING (task)
WHERE execution.state = 'FAILURE' AND fact.expect_state = 'SUCCESS' AND fact.ending = 'SUCCESS';

-- name: failed_run
-- A run failed, and the row says that the task succeeded.
SELECT task FROM fact WHERE failed AND ending = 'SUCCESS' AND task NOT IN (SELECT task FROM fanout);

-- name: promised_count
SELECT count(*) FROM promised;

-- name: never_sent
-- Tasks that were to follow one that succeeded, and that nobody ever sent: the next ones in a chain, with those after
-- them, and links. A chord's body is looked for elsewhere.
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

-- name: chords
-- Every chord whose body nobody sent although no member failed: what it waits for, and whether that can still come.
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
         -- A member that was to follow a task that failed was never sent, and has a row that says so.
         SELECT member.body, member.task, fact.task IS NULL AS unsent,
                CASE WHEN fact.task IS NULL THEN result.status ELSE fact.ending END AS ending, fact.fate,
                coalesce(fact.recorded, false) AS recorded
         FROM member LEFT JOIN fact USING (task) LEFT JOIN result USING (task)
     )
SELECT body.task AS task, body.name,
       count(*) AS members,
       count(*) FILTER (unsent) AS unsent,
       bool_or(unsent OR (known.ending IS NOT NULL AND NOT recorded AND $results_readable) OR known.fate = 'lost')
           AS is_hopeless,
       min(known.task, 3) FILTER (unsent OR NOT recorded) AS waits_for
FROM body JOIN known ON known.body = body.task
GROUP BY body.task, body.name
HAVING NOT bool_or(coalesce(known.ending IN ('FAILURE', 'REVOKED'), false));

-- name: groups_half_sent
-- A group was saved before all of its members were sent; whoever waits for it waits for ever.
SELECT DISTINCT task FROM grouped WHERE task NOT IN (SELECT task FROM entry);

-- name: chords_half_sent
SELECT task FROM chord WHERE unsent > 0;

-- name: chords_hopeless
SELECT task FROM chord WHERE unsent = 0 AND (is_hopeless OR waits_for IS NULL);

-- name: chords_waiting
SELECT task FROM chord WHERE unsent = 0 AND NOT is_hopeless AND waits_for IS NOT NULL;

-- name: left_after_end
SELECT task FROM fact WHERE is_left AND ending IS NOT NULL;

-- name: unexpected_effects
-- An effect is expected if some task wanted it by any of its keys, or if the task that had it never said which effects
-- it would have. Where it is not known who had it, it may be any task that said nothing.
WITH wanted AS (SELECT key FROM want UNION ALL SELECT unnest(effects) FROM moving)
SELECT DISTINCT key AS task FROM effect
WHERE key IS NOT NULL AND key NOT IN (SELECT key FROM wanted)
  AND key NOT IN (SELECT key FROM other_name WHERE name IN (SELECT key FROM wanted))
  AND coalesce(task NOT IN (SELECT task FROM entry WHERE NOT declared),
               NOT EXISTS (FROM entry WHERE NOT declared) AND NOT EXISTS (FROM moving))
  AND coalesce(task NOT IN (SELECT task FROM moving), true);

-- name: failed_unexpectedly
SELECT task FROM fact WHERE fate = 'failed' AND ending <> expect_state;

-- name: reasons
-- Why tasks failed that should not have: the most frequent errors, with one message of each.
SELECT coalesce(error, lower(ending)) AS error,
       min(coalesce(json_extract_string(said, '$.exc_message[0]'), json_extract_string(said, '$.exc_message'), '')),
       count(*) AS count
FROM (SELECT *, CASE WHEN codec = 'json' THEN value::JSON END AS said FROM fact)
WHERE fate = 'failed' AND ending <> expect_state
GROUP BY ALL ORDER BY count DESC, error LIMIT 3;

-- name: refused_but_ran
SELECT task FROM fact WHERE outcome = 'refused' AND NOT coalesce(known, false) AND ran;

-- name: early
SELECT task FROM early_run;

-- name: late
SELECT task FROM fact WHERE (success_t - due_t) > $deadline_s;

-- name: undecoded
SELECT task FROM fact WHERE codec IN ('other', 'unread');

-- name: ran_again
-- Allowed by the promise, and still worth a remark.
SELECT task FROM fact WHERE starts > 1 + again AND fate NOT IN ('duplicated', 'lost');

-- name: had_again
-- More effects than one, each explained by an execution that was cut short, or allowed by the promise.
SELECT task FROM fact WHERE extra > 0 AND fate <> 'duplicated';

-- name: unfinished_rows
-- Rows that are no ending, such as STARTED or RETRY: Celery never cleans them up.
SELECT task FROM fact WHERE has_row AND NOT recorded;

-- name: names
-- From here on, queries say more of some tasks than their ids.
-- The names of some tasks, each with how many of them have it.
SELECT name, count(*) AS count FROM entry WHERE task IN (SELECT unnest($tasks::VARCHAR[])) AND name IS NOT NULL
GROUP BY name ORDER BY count DESC, name LIMIT 4;

-- name: stories
-- All that is worth telling of some tasks.
SELECT fact.task, fact.name, fact.queue, fact.starts, fact.ending, fact.outcome, fact.status, fact.error,
       fact.expect_state, coalesce(fact.expect_result, fact.expect_start || '...') AS expect_result, fact.expect_error,
       fact.codec,
       coalesce(fact.value, fact.start || '...') AS value,
       discard.reason AS discarded, discard.worker AS discarded_by,
       (SELECT string_agg(worker || coalesce(' ' || state, '') || coalesce(' (' || error || ')', ''), ', ' ORDER BY worker)
        FROM execution WHERE execution.task = fact.task) AS workers,
       (SELECT arg_max(code, starts) FROM execution WHERE execution.task = fact.task AND code IS NOT NULL) AS code
FROM fact LEFT JOIN discard USING (task) WHERE fact.task IN (SELECT unnest($tasks::VARCHAR[])) ORDER BY fact.task;

-- name: absent_keys
SELECT key FROM want WHERE task = $task AND key NOT IN (SELECT key FROM effect WHERE key IS NOT NULL)
  AND key NOT IN (SELECT name FROM other_name) ORDER BY key LIMIT 3;

-- name: repeated_keys
SELECT want.key, count(*) AS times
FROM want JOIN (SELECT key FROM effect UNION ALL SELECT name FROM other_name) AS seen USING (key)
WHERE want.task = $task
GROUP BY want.key HAVING count(*) > 1 ORDER BY want.key LIMIT 3;

-- name: first_traceback
SELECT told.task, told.traceback, told.worker FROM told JOIN fact USING (task)
WHERE fate = 'failed' AND ending <> expect_state ORDER BY told.task LIMIT 1;

-- name: chord_stories
-- What is to be told of the first chords that some query finds.
SELECT chord.task, chord.name, chord.members, chord.unsent, chord.waits_for,
       unlock_task.task AS unlock, coalesce(run.starts, 0) AS looks
FROM chord
LEFT JOIN (SELECT DISTINCT task AS body, predecessor AS task FROM promised
           WHERE way = 'body' AND predecessor IN (SELECT task FROM unlock)) AS unlock_task ON unlock_task.body = chord.task
LEFT JOIN run ON run.task = unlock_task.task
WHERE chord.task IN (SELECT unnest($tasks::VARCHAR[])) ORDER BY chord.task;
