"""The load test, in two processes: the process of Locust makes the load, the other owns the stack.

The process of Locust, from the top down:

    locust_run        the runs of one process, from the first event to the exit code; locust_page is its page
    run_state         the states of a run, and the events that are allowed in each
    stack_order       the order to bring up a stack
    locust_table      the rows and errors in Locust's table; exit_report has the last report and the exit code
    options           the options, and the check for contradictions
    run_legs          the legs of a run; capacity_search searches, leg by leg
    load_processes    the processes that send: one process alone, or a master's workers
    generators        makes each arrival when it is due; arrivals has the due times
    publish_pipeline  publishes for the senders
    worker_messages   the messages between a Locust master and its workers
    stack_client      exchanges messages with the other process

The process that owns the stack, which does not use Locust:

    stack_process          carries out orders
    stack_under_load       one stack under load: brought up, measured, disturbed by faults, drained, audited
    scenarios_together     the common stack and promise of several scenarios
    live_figures, verdict  the figures, and the verdict

Both processes use messages, which has the messages between them.
"""
