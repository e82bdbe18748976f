"""The local app: videos and photographs in, people chosen and corrected, results out, in a browser.

server.py   requests: who may ask, uploads, files of results
jobs.py     one folder per job, the queue, the process of the job that runs
worker.py   that process: finds people, makes boxes of who was chosen, runs the commands
page/       what the browser shows
"""
