"""The programs that run inside the containers: the agent of Celery nodes, the mail server, the web producer."""
