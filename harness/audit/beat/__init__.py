"""The audit of beat: was each entry of its schedule sent when it was due?"""
