"""The local app: videos and photographs in, people chosen and corrected, results out, in a browser.

server.py   requests: who may ask, uploads, files of results
jobs.py     one folder per job, the queue, the process of the job that runs
people.py   who is wanted: what was found, what was corrected -> boxes, and what a job is asked for
worker.py   that process: finds people, tries two seconds, runs the commands
page/       what the browser shows
"""
