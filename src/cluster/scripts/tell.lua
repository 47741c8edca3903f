#!lua flags=allow-oom
-- tell: reports to a client what becomes of a message that steers a turn.
--
-- ARGV: cid, the message's request, 'taken', 'event' or 'end', an event as JSON or '', the number of the report.
-- Returns {'ok'}, or {'gone'} if the client is gone.
-- Twice: the client is told twice, and drops a report with a number that it has seen.
local stream = ns .. 'c:' .. ARGV[2]
if redis.call('XADD', stream, 'NOMKSTREAM', '*', 'steered', ARGV[3], 'kind', ARGV[4], 'body', ARGV[5],
    'number', ARGV[6]) then
    return { 'ok' }
end
return { 'gone' }
