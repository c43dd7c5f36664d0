"""What became of each task: a pure function of the run folder. Knows neither Docker nor Celery."""
