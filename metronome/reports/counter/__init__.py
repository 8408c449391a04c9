"""Usage of datasets by the COUNTER Code of Practice for Research Data (Make Data Count).

The implementation follows the *Code of Practice for Research Data Usage Metrics*, release 1 (RD1): Fenner et al. 2018,
doi:10.7287/peerj.preprints.26505v1, and https://coprd.countermetrics.org/. Section numbers are those of that document
(10 Processing rules, 11 SUSHI).
"""
