#!lua flags=no-writes
-- look: reads what a worker has to do for one of its sessions.
--
-- ARGV: id, wid.
-- Returns {'gone'} if the worker does not have the session any more, else {'ok', epoch, archived, turns, feeds}. A turn
-- is {turn, request, its clients, body, cancel reason or '', messages, responses}. A message is {request, cid, text}, a
-- response {input, response or '' if the worker claimed it}. A feed is {feed, cid, options}.
-- What a turn has stays until its end, so a lost reply loses nothing: the worker knows what it has taken.
local key = session_key(ARGV[2])
local found = redis.call('HMGET', key, 'wid', 'epoch', 'archived', 'flight', 'feeds')
if found[1] ~= ARGV[3] then
    return { 'gone' }
end
local turns = {}
for _, turn in ipairs(words(found[4])) do
    local field = 't:' .. turn .. ':'
    local part = redis.call('HMGET', key, field .. 'req', field .. 'cid', field .. 'body', field .. 'cancel',
        field .. 'msg', field .. 'in')
    local messages, responses = {}, {}
    for _, message in ipairs(words(part[5])) do
        local text = redis.call('HMGET', key, 'm:' .. message .. ':cid', 'm:' .. message)
        messages[#messages + 1] = { message, text[1], text[2] }
    end
    for _, input in ipairs(words(part[6])) do
        local response = redis.call('HGET', key, 'r:' .. input)
        if response then
            responses[#responses + 1] = { input, response }
        end
    end
    turns[#turns + 1] = { turn, part[1], part[2], part[3], part[4] or '', messages, responses }
end
local feeds = {}
for _, feed in ipairs(words(found[5])) do
    local part = redis.call('HMGET', key, 'f:' .. feed .. ':cid', 'f:' .. feed)
    feeds[#feeds + 1] = { feed, part[1], part[2] }
end
return { 'ok', found[2], found[3] or '0', turns, feeds }
