"""A fault: a broker runs out of memory, by its own limit."""

from harness.containers.broker_node import Alarm
from harness.faults.broker_alarm import BrokerAlarm


class MemoryAlarm(BrokerAlarm):
    """A broker whose memory is above its limit, because the limit is lowered to a byte; see `BrokerAlarm`."""

    kind = "memory-alarm"
    doing = "put into a memory alarm"
    alarm = Alarm.MEMORY
