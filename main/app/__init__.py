"""The local app: inference in a browser, with people to choose and boxes to correct.

server.py   requests: access control, uploads, files of results
jobs.py     one folder per job, the queue, the process of the running job
people.py   validation of requests: options, chosen people, corrected boxes
worker.py   the process of a job: finds people, tries two seconds, runs the commands
page/       what the browser shows
"""
